"""Blocks of values of a tensor that differs: the found values, the base's, each adapter's update, and the
expected sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from adaptry.adapters.adapter import Adapter
from adaptry.bases.shards import Shards
from adaptry.compute.merge_verification.tensor_pairs import TensorPair
from adaptry.compute.merging.dense_change import read_base_weight
from adaptry.compute.merging.kernels import row_layout
from adaptry.compute.merging.layout import BaseTensor, OutputTensor
from adaptry.compute.merging.lora_delta import read_term
from adaptry.compute.merging.whole_changes import ChangeChain, StreamedChange, WholeChange, apply_changes
from adaptry.compute.tensors.adapter_tensors import DTYPES, as_tensor
from adaptry.compute.tensors.kernel import row_blocks
from adaptry.compute.tensors.torch_kernel import stack_terms
from adaptry.core.lazy_dataclass import dataclass

_BLOCK = 8 << 20


@dataclass(frozen=True, slots=True)
class ValueBlock:
    """`found` and `wanted` in the checkpoint's dtype, `stored` in the base's, `deltas` (one per adapter) in
    float32, all with the same shape. `reach` is |W| + Σ scale·|B|·|A|, to which the error of a sum is
    relative (None unless all are plain LoRAs).
    """

    found: Tensor
    stored: Tensor
    wanted: Tensor
    deltas: tuple[Tensor, ...]
    reach: Tensor | None = None


@dataclass(frozen=True, slots=True)
class DeltaOrigin:
    """The adapter of a delta, with `scale` (as trained), `rank` and `is_rslora` for a plain LoRA."""

    adapter: Adapter | None
    scale: float | None = None
    rank: int = 0
    is_rslora: bool = False


def delta_origins(tensor: OutputTensor) -> tuple[DeltaOrigin, ...]:
    """The origin of each delta of the tensor's blocks."""
    if tensor.updates:
        return tuple(
            DeltaOrigin(
                update.adapter,
                update.module.scale,
                update.module.rank,
                update.adapter.config.flag("use_rslora"),
            )
            for update in tensor.updates
        )
    return tuple(DeltaOrigin(_owner(change)) for change in tensor.changes)


def blocks(pair: TensorPair, base: Shards, found: Shards) -> Iterator[ValueBlock]:
    """The tensor in runs of rows, or as one block if it is changed as a whole."""
    if pair.expected.is_whole:
        yield _whole(pair, base, found)
    else:
        yield from _streamed(pair, base, found)


def _streamed(pair: TensorPair, base: Shards, found: Shards) -> Iterator[ValueBlock]:
    tensor, place = pair.expected, pair.location
    rows, row_bytes = row_layout(tensor)
    if not rows:
        return
    columns = tensor.source.numel // rows
    row_found = place.info.size // rows
    terms = [read_term(update) for update in tensor.updates]
    each = [stack_terms([term], tensor.is_transposed) for term in terms]
    together = stack_terms(terms, tensor.is_transposed) if terms else None
    for first, count in row_blocks(rows, row_bytes, _BLOCK):
        shape = count, columns
        stored = _rows(
            base, tensor.shard, tensor.source.dtype, tensor.source.start + first * row_bytes, shape
        )
        there = _rows(found, place.shard, place.info.dtype, place.info.start + first * row_found, shape)
        exact, reach, deltas = stored.float(), stored.float().abs(), []
        for update in each:
            left, right = update.sides(first, count)
            deltas.append(left @ right * update.scale)
            reach += left.abs() @ right.abs() * abs(update.scale)
        if together is not None:
            left, right = together.sides(first, count)
            exact = exact + left @ right * together.scale
        yield ValueBlock(there, stored, exact.to(there.dtype), tuple(deltas), reach)


def _whole(pair: TensorPair, base: Shards, found: Shards) -> ValueBlock:
    tensor, place = pair.expected, pair.location

    def read_bias() -> Tensor | None:
        return None if tensor.bias is None else read_base_weight(base, tensor.bias)

    stored = read_base_weight(base, BaseTensor(tensor.shard, tensor.source, tensor.packed))
    there = as_tensor(found.read_tensor(place.shard, place.info), place.info)
    # As in a merge: a tensor that changes its dtype is rounded once, from float32.
    start = stored if stored.dtype == DTYPES[tensor.dtype] else stored.float()
    expected = apply_changes(tensor.changes, start, read_bias) if tensor.changes else stored
    if expected.shape != stored.shape:  # a larger vocabulary: the base has no such rows
        stored = torch.zeros_like(expected)
        return ValueBlock(there, stored, expected.to(there.dtype), ())
    wide = stored.float()
    deltas = [change.weight * (change.apply(wide, read_bias).float() - wide) for change in tensor.changes]
    return ValueBlock(there, stored, expected.to(there.dtype), tuple(deltas))


def _rows(shards: Shards, shard: str, dtype: str, at: int, shape: Sequence[int]) -> Tensor:
    data = bytearray(math.prod(shape) * DTYPES[dtype].itemsize)
    shards.read(shard, memoryview(data), at)
    return torch.frombuffer(data, dtype=DTYPES[dtype]).view(*shape)


def _owner(change: WholeChange) -> Adapter | None:
    match change:
        case ChangeChain(steps):
            return _owner(steps[0])
        case StreamedChange(update):
            return update.adapter
        case _:
            return getattr(change, "adapter", None)
