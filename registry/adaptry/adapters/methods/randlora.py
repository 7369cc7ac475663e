"""RandLoRA: full-rank updates from shared random bases (arXiv 2502.00987; PEFT `tuners/randlora`).

PEFT saves the bases for the whole model and again in every module; here those of the model are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    common_number,
    trained_rank,
)
from adaptry.adapters.methods.random_projections import (
    is_projection_saved,
    largest_of,
    largest_sides,
    matrix_sides,
    saved_projections,
    seeded_generator,
)
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (rank, bases), (again, smaller) = shapes["lambda"], shapes["gamma"]
    trained_rank(config, rank, 32)
    common_number(bases, again, math.ceil(smaller / rank))
    if is_projection_saved(config):
        common_number(rank, shapes["A"][0], shapes["B"][2])
        if shapes["B"][1] < bases:
            raise ValueError(f"the module has {bases} bases, but the saved B has only {shapes['B'][1]}")
        if any(shapes.get(f"{side}_again", shapes[side]) != shapes[side] for side in "AB"):
            raise ValueError("the module's copy of a base has a different shape")
    return ModuleSize(rank, 0, 0)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    larger, smaller = max(weight.fan_out, weight.fan_in), min(weight.fan_out, weight.fan_in)
    if shapes["gamma"][1] != smaller:
        return f"is for a shorter side of {shapes['gamma'][1]:,}, but this base's has {smaller:,}"
    if is_projection_saved(config) and (shapes["A"][2] < smaller or shapes["B"][0] < larger):
        reach = f"{shapes['B'][0]:,}×{shapes['A'][2]:,}"
        return f"has bases for weights of up to {reach}, but this base's is {larger:,}×{smaller:,}"
    return None


def _shapes_in_model(weights: Mapping[str, WeightSides], config: AdapterConfig) -> Mapping[str, Shapes]:
    """The shapes of the bases, whose sides are the shorter and the longer of the largest sides."""
    if not weights or not is_projection_saved(config):
        return {}
    rank, sides = config.rank(default=32), largest_of(weights.values())
    larger, smaller = max(sides), min(sides)
    return {"": {"A": (rank, 1, smaller), "B": (larger, math.ceil(smaller / rank), rank)}}


def _scale(config: AdapterConfig, module: ModuleSpec) -> float:
    return config.number("randlora_alpha", 640) / config.rank(default=32)


def _sparse(drawn: Tensor, sparsity: float) -> Tensor:
    """−1 and 1 for the extremes of a uniform draw, 0 for all other values."""
    import torch

    signs = torch.zeros(drawn.shape)
    signs[drawn < 1 / (2 * sparsity)] = -1
    signs[drawn > 1 - 1 / (2 * sparsity)] = 1
    return signs


def _bases(parts: ModuleTensors, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A [r, 1, smaller side] and B [larger side, bases, r], from the file or drawn as PEFT draws them."""
    import torch

    if is_projection_saved(parts.config):
        return parts["A"], parts["B"]
    sides, rank = largest_sides(parts), parts.module.rank
    larger, smaller = max(sides), min(sides)
    count = math.ceil(smaller / rank)
    source = seeded_generator(parts.config, "projection_prng_key", 0)
    very_sparse = parts.config.flag("very_sparse")
    if very_sparse or parts.config.flag("sparse"):
        sparsity = math.sqrt(smaller) if very_sparse else 3
        down = _sparse(torch.rand((rank, 1, smaller), generator=source), sparsity)
        up = _sparse(torch.rand((larger, count, rank), generator=source), sparsity)
    else:  # PEFT draws them in bfloat16 on a CPU

        def kaiming(*shape: int) -> Tensor:
            bound = math.sqrt(3.0) * (math.sqrt(2.0 / (1 + 5)) / math.sqrt(math.prod(shape[1:])))
            return torch.empty(shape, dtype=torch.bfloat16).uniform_(-bound, bound, generator=source)

        down = kaiming(rank, 1, smaller)
        up = torch.cat([kaiming(larger, 1, rank) for _ in range(count)], dim=1)
    down, up = ((base / base.std()).to(weight.dtype).float() for base in (down, up))
    return down, up


def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    fan_out, fan_in = matrix_sides(parts, tuple(weight.shape))
    larger, smaller = max(fan_out, fan_in), min(fan_out, fan_in)
    down, up = _bases(parts, weight)
    gamma = parts["gamma"]
    count = gamma.shape[0]
    scaled_up = up[:larger, :count, :].flatten(start_dim=1)
    scaled_down = (parts["lambda"][:, :, None] * down[:, :count, :smaller] * gamma[None,]).flatten(end_dim=1)
    first, second = (scaled_down, scaled_up) if smaller == fan_in else (scaled_up.T, scaled_down.T)
    update = (first.T @ second.T).T
    if parts.orientation == "conv1d":
        update = update.T
    return weight + (update * parts.module.scale).to(weight.dtype)


_GROUP = 1 << 20
"""Number of elements of the update, and of B, that are computed together."""
_TERMS_TOGETHER, _BASES_TOGETHER = 256, 64
"""For float32 weights, the numbers of terms, and of bases among them, that are summed in float32; these sums
are added in float64.
"""


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """The update as a formula; only for adapters whose files contain the random bases."""
    if not is_projection_saved(parts.config) or min(shape) != parts.shape("gamma")[1]:
        return None
    if parts.shape("B")[0] < max(shape) or parts.shape("A")[2] < min(shape):
        return None
    return RowFormula("dense", 0, lambda: FormulaArrays(write_rows=_UpdateRows(parts, shape)))


class _UpdateRows:
    """Computes rows of the update, in groups. B, as large as the weight, is read in parts for each group."""

    def __init__(self, parts: ModuleArrays, shape: tuple[int, int]) -> None:
        import numpy as np

        self._parts, (self._fan_out, self._fan_in) = parts, shape
        self._down = parts["A"][:, 0, : min(shape)]
        self._gamma = parts["gamma"]
        self._trained = parts["lambda"] * np.float32(parts.module.scale)
        self._size = max(1, _GROUP // self._fan_in)
        self._first, self._group = 0, np.empty((0, self._fan_in), np.float32)

    def __call__(self, first: int, rows: Floats) -> None:
        done = 0
        while done < len(rows):
            row = first + done
            start = row // self._size * self._size  # groups do not depend on the requested rows
            if start != self._first or not len(self._group):
                self._compute(start, min(start + self._size, self._fan_out))
            part = self._group[row - start : row - start + len(rows) - done]
            rows[done : done + len(part)] = part
            done += len(part)

    def _compute(self, first: int, last: int) -> None:
        import numpy as np

        if self._fan_in <= self._fan_out:
            found = self._update(first, last, slice(None))
        else:
            found = np.empty((last - first, self._fan_in), np.float32)
            step = max(1, _GROUP // self._trained.size)
            for begin in range(0, self._fan_in, step):
                end = min(begin + step, self._fan_in)
                found[:, begin:end] = self._update(begin, end, slice(first, last)).T
        self._first, self._group = first, found

    def _update(self, first: int, last: int, columns: slice) -> Floats:
        """Rows of the update of a weight that has at least as many rows as columns. PEFT flattens λ·A·γ as
        [r, bases], but B as [bases, r].
        """
        import numpy as np

        rank, bases = self._trained.shape
        up = self._parts.rows("B", first, last).reshape(last - first, -1)[:, : rank * bases]
        up = up.reshape(-1, rank, bases) * self._trained
        gamma, down = self._gamma[:, columns], self._down[:, columns]
        if self._parts.dtype != "F32":
            return self._parts.weighted_products(up, gamma, down)
        total = np.zeros((len(up), gamma.shape[1]))
        for some in _slices(bases, _BASES_TOGETHER):
            for ranks in _slices(rank, max(1, _TERMS_TOGETHER // min(bases, _BASES_TOGETHER))):
                total += self._parts.weighted_products(up[:, ranks, some], gamma[some], down[ranks])
        return total.astype(np.float32)


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(begin, begin + size) for begin in range(0, count, size))


METHOD = Method(
    name="randlora",
    title="RandLoRA",
    key_patterns={
        **{f"randlora_{role}": role for role in ("lambda", "gamma")},
        **{f"randlora_{side}": f"{side}_again" for side in "AB"},
    },
    shared={f"randlora_{role}": role for role in "AB"},
    tolerance="within rounding; without saved projections, only with the version of torch that drew them",
    module_size=_module_size,
    products=(("lambda", "gamma"),),
    untrained_roles="[AB](?:_again)?",
    scale=_scale,
    weight=_weight,
    formula=_formula,
    required_shared=saved_projections,
    mismatch=_mismatch,
    shapes_in_model=_shapes_in_model,
)
