"""Pairs the tensors of a checkpoint with those of the merge, by name, whichever tool wrote them.

A head that is tied in one and stored in the other is compared with the embedding. Buffers are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from adaptry.adapters.base_record import TensorShape
from adaptry.adapters.tensor_names import is_buffer
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.parameter_lookup import ParameterNames
from adaptry.compute.merging.layout import BaseTensor, OutputTensor
from adaptry.compute.merging.plan import MergePlan
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class TensorPair:
    """A tensor of the merge, and the corresponding tensor of the checkpoint, with its position."""

    expected: OutputTensor
    tensor: str
    location: BaseTensor


@dataclass(frozen=True, slots=True)
class TensorPairs:
    """`missing`: tensors of the merge that the checkpoint lacks. `extra`: tensors that only the checkpoint
    has.
    """

    pairs: tuple[TensorPair, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


Facts = Mapping[str, Any]
"""Of a config, as a fingerprint has them. (`Any`: JSON.)"""


def pair_tensors(plan: MergePlan, wanted: Facts, checkpoint: HfCheckpoint, found: Facts) -> TensorPairs:
    """`wanted` are the facts of the merge's config, `found` those of the checkpoint's config."""
    tensors = {expected.name: expected for file in plan.files for expected in file.tensors}
    names = ParameterNames(_shapes(checkpoint), found)
    pairs: list[TensorPair] = []
    missing: list[str] = []
    for expected in tensors.values():
        tensor = expected.name if expected.name in checkpoint.tensors else _found(names, expected.name)
        if tensor in checkpoint.tensors:
            pairs.append(_pair(expected, tensor, checkpoint))
        elif not is_buffer(expected.name, expected.shape):
            missing.append(expected.name)
    shapes = {
        expected.name: TensorShape(dtype=expected.dtype, shape=expected.shape)
        for expected in tensors.values()
    }
    known = ParameterNames(shapes, wanted)
    extra: list[str] = []
    for tensor in _unpaired(checkpoint, pairs):
        name = _found(known, tensor)
        if name in tensors:
            pairs.append(_pair(tensors[name], tensor, checkpoint))
        elif not is_buffer(tensor, checkpoint.tensors[tensor].shape):
            extra.append(tensor)
    return TensorPairs(tuple(pairs), tuple(missing), tuple(extra))


def _unpaired(checkpoint: HfCheckpoint, pairs: Iterable[TensorPair]) -> list[str]:
    used = {pair.tensor for pair in pairs}
    return [tensor for tensor in checkpoint.tensors if tensor not in used]


def _pair(expected: OutputTensor, tensor: str, checkpoint: HfCheckpoint) -> TensorPair:
    return TensorPair(expected, tensor, BaseTensor(checkpoint.shard_of[tensor], checkpoint.tensors[tensor]))


def _found(names: ParameterNames, name: str) -> str:
    """The tensor on disk for `name`; empty if it is missing or consists of several."""
    where = names.find(name)
    if where.tensor is None or len(where.tensor.parts) > 1:
        return ""
    return where.tensor.parts[0]


def _shapes(checkpoint: HfCheckpoint) -> dict[str, TensorShape]:
    return {
        name: TensorShape(dtype=info.dtype, shape=info.shape) for name, info in checkpoint.tensors.items()
    }
