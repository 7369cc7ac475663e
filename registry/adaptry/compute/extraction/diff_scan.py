"""Finds the weights that training changed: compares both checkpoints' bytes up to the first difference.

An unchanged weight is read only once, and a changed one only up to the first difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from adaptry.adapters.header import DTYPE_BITS, TensorInfo
from adaptry.adapters.transformers_conversion import LoadedTensor
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.shards import CHUNK, Shards
from adaptry.compute.extraction.weight_pairs import WeightPair
from adaptry.compute.tensors.adapter_tensors import DTYPES, as_tensor
from adaptry.core.errors import Unsupported


class CheckpointPair:
    """A context manager with base and fine-tune open. Weights are read completely, one at a time."""

    def __init__(self, base: HfCheckpoint, tuned: HfCheckpoint) -> None:
        self._checkpoints = base, tuned
        self._shards = Shards(base), Shards(tuned)

    def __enter__(self) -> CheckpointPair:
        return self

    def __exit__(self, *raised: object) -> None:
        for shards in self._shards:
            shards.__exit__(*raised)

    def tuned(self, weight: WeightPair) -> Tensor:
        """The fine-tune's weight, in its dtype and its shape in memory."""
        return self._read(1, weight.tuned)

    def delta(self, weight: WeightPair) -> Tensor:
        """W' − W in float32, in the shape in memory. Raises `Unsupported` for dtypes that are not floats."""
        assert weight.base is not None
        found = self._read(1, weight.tuned).float()
        return found.sub_(self._read(0, weight.base).float())

    def is_changed(self, weight: WeightPair) -> bool:
        """Whether any element differs by more than the rounding to the fine-tune's dtype."""
        if weight.base is None or weight.base.shape != weight.tuned.shape:
            return True
        if len(weight.base.parts) != len(weight.tuned.parts):
            return bool(self.delta(weight).any())
        return any(
            self._differs(one, other)
            for one, other in zip(weight.base.parts, weight.tuned.parts, strict=True)
        )

    def _differs(self, base: str, tuned: str) -> bool:
        one, other = self._info(0, base), self._info(1, tuned)
        sizes = [CHUNK * DTYPE_BITS[info.dtype] // 8 for info in (one, other)]
        runs = zip(self._chunks(0, base, sizes[0]), self._chunks(1, tuned, sizes[1]), strict=True)
        if one.dtype == other.dtype:
            return any(bytes(left) != bytes(right) for left, right in runs)
        kinds = _dtype(base, one), _dtype(tuned, other)
        return any(
            not torch.equal(
                torch.frombuffer(left, dtype=kinds[0]).to(kinds[1]), torch.frombuffer(right, dtype=kinds[1])
            )
            for left, right in runs
        )

    def _read(self, side: int, weight: LoadedTensor) -> Tensor:
        parts = []
        for name in weight.parts:
            info = self._info(side, name)
            _dtype(name, info)
            parts.append(as_tensor(self._shards[side].read_tensor(self._shard(side, name), info), info))
        return parts[0].reshape(weight.shape) if len(parts) == 1 else torch.cat(parts).reshape(weight.shape)

    def _chunks(self, side: int, name: str, size: int) -> Iterator[memoryview]:
        return self._shards[side].chunks(self._shard(side, name), self._info(side, name), size)

    def _info(self, side: int, name: str) -> TensorInfo:
        return self._checkpoints[side].tensors[name]

    def _shard(self, side: int, name: str) -> str:
        return self._checkpoints[side].shard_of[name]


def size_of(weight: WeightPair) -> int:
    """The number of elements, for progress."""
    return math.prod(weight.shape)


def _dtype(name: str, info: TensorInfo) -> torch.dtype:
    if info.dtype not in DTYPES or not DTYPES[info.dtype].is_floating_point:
        raise Unsupported(
            f"{name} is {info.dtype}, but only F64, F32, F16 and BF16 can be subtracted: extract from"
            " unquantised checkpoints"
        )
    return DTYPES[info.dtype]
