"""The second pass over a tensor: sums over its blocks, and a diagnosis based on these sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adaptry.compute.merge_verification.ulp_diff import UlpDiff
from adaptry.compute.merge_verification.values import DeltaOrigin, ValueBlock
from adaptry.compute.tensors.adapter_tensors import DTYPES

_MAX_DISTANCE = 0.02  # largest distance of a fitted factor from a factor with a known meaning
_SUM = 8 * 2.0**-24  # relative error of another order of summation in float32

NamedOrigin = tuple[str, DeltaOrigin]


class SecondPass:
    """Takes blocks one by one. `wrong` is ‖found − wanted‖², `change` is ‖found − base‖²."""

    def __init__(self, dtype: str, count: int) -> None:
        self._dtype = dtype
        self.wrong = 0.0
        self.change = 0.0
        self._size = 0.0  # ‖base‖²
        self._update = 0.0  # ‖wanted − base‖²
        self._noise = 0.0
        self._gram = torch.zeros(count, count, dtype=torch.float64)
        self._right = torch.zeros(count, dtype=torch.float64)
        self._base = UlpDiff(dtype)
        self._others: dict[str, UlpDiff] = {}
        self._is_sum = True

    def add(self, block: ValueBlock) -> None:
        found, stored, expected = (each.double() for each in (block.found, block.stored, block.wanted))
        change = found - stored
        self.wrong += float((found - expected).square().sum())
        self.change += float(change.square().sum())
        self._size += float(stored.square().sum())
        self._update += float((expected - stored).square().sum())
        eps = torch.finfo(block.found.dtype).eps
        self._noise += float((found * eps).square().sum() + (stored * _SUM).square().sum())
        for row, delta in enumerate(block.deltas):
            wide = delta.double()
            self._right[row] += (wide * change).sum()
            for column in range(row + 1):
                self._gram[row, column] += (wide * block.deltas[column].double()).sum()
        _tally(self._base, block.found, block.stored.to(block.found.dtype))
        for name, other in _roundings(block).items():
            _tally(self._others.setdefault(name, UlpDiff(self._dtype)), block.found, other)
        self._is_sum = self._is_sum and _is_within_a_sum(block, found, eps)

    @property
    def error(self) -> float:
        """‖found − wanted‖ relative to the update, or to the base if there is no update."""
        whole = self._update or self._size
        return math.sqrt(self.wrong / whole) if whole else math.inf

    def other_rounding(self, tolerance: int) -> str | None:
        """The way of rounding that explains the found values; None if none does."""
        for name, tally in self._others.items():
            if tally.largest <= tolerance and (tally.largest or not tally.differing):
                return name
        if tolerance and self._is_sum:
            return "the same sum, added in another order"
        return None

    def hint(self, named: Sequence[NamedOrigin]) -> str:
        """A sentence about the actual values."""
        if not self._base.differing:
            return "it equals the base" + (": no adapter was applied" if named else "")
        if not named:
            return "no adapter changes it, and it is not the base's"
        if not math.isfinite(self.change):
            return "it contains NaN"
        gram = self._gram + self._gram.tril(-1).T
        factors = torch.linalg.lstsq(gram, self._right.unsqueeze(1), driver="gelsd").solution.squeeze(1)
        left = self.change - float(self._right @ factors)
        if left > self._noise:
            is_there = all(_is_near(float(factor), 1.0) for factor in factors)
            return (
                "the update was applied, with further changes"
                if is_there
                else "it is not a multiple of the update"
            )
        hints = [
            hint
            for factor, name in zip(factors, named, strict=True)
            if (hint := _factor_hint(float(factor), name))
        ]
        return "; ".join(hints) or "the update was applied, but some elements differ by more than rounding"


def _factor_hint(factor: float, named: NamedOrigin) -> str | None:
    """The meaning of a factor other than 1."""
    label, origin = named
    if _is_near(factor, 1.0):
        return None
    meanings: dict[str, float] = {
        "was not applied": 0.0,
        "was applied with the opposite sign": -1.0,
        "was applied twice": 2.0,
    }
    if origin.scale:
        root = math.sqrt(origin.rank)
        if origin.is_rslora:
            meanings["was scaled by α/r, but it is rsLoRA (α/√r)"] = 1 / root
        else:
            meanings["was scaled like rsLoRA (α/√r), but it is not rsLoRA"] = root
        meanings["was applied without its scale"] = 1 / origin.scale
    explanations = [meaning for meaning, value in meanings.items() if _is_near(factor, value)]
    return f"{label} {' or '.join(explanations) or f'was applied at {factor:.3g} times its weight'}"


def _is_near(factor: float, value: float) -> bool:
    return abs(factor - value) <= _MAX_DISTANCE * max(1.0, abs(value))


def _roundings(block: ValueBlock) -> Mapping[str, Tensor]:
    """The results of programs that round more often: after each adapter, or to an intermediate dtype."""
    stored, found = block.stored.dtype, block.found.dtype
    others: dict[str, Tensor] = {}
    if len(block.deltas) > 1:
        others["each adapter was merged and rounded in turn"] = _in_turn(block, stored).to(found)
    if block.deltas and stored != found:
        others[f"the base was {_dtype_name(found)} before the merge"] = _in_turn(block, found)
        others[f"it was merged in {_dtype_name(stored)} and cast afterwards"] = _in_turn(block, stored).to(
            found
        )
    return others


def _in_turn(block: ValueBlock, dtype: torch.dtype) -> Tensor:
    weight = block.stored.to(dtype)
    for delta in block.deltas:
        weight = (weight.float() + delta).to(dtype)
    return weight


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_within_a_sum(block: ValueBlock, found: Tensor, eps: float) -> bool:
    """Whether every difference can be explained by another order of summation and the rounding to the
    dtype.
    """
    if block.reach is None:
        return False
    exact = block.stored.double() + sum(delta.double() for delta in block.deltas)
    room = block.reach.double() * _SUM + found.abs() * (eps / 2)
    return bool(((found - exact).abs() <= room).all())


def _tally(tally: UlpDiff, found: Tensor, other: Tensor) -> None:
    tally.add(_bytes(found), _bytes(other), DTYPES[tally.dtype].itemsize)


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.contiguous().view(-1)
    data: memoryview = flat.view(torch.uint8).numpy().data
    return data
