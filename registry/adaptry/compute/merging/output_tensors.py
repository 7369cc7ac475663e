"""The tensors of a merged checkpoint, copied, cast or changed, before they are assigned to files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from adaptry.adapters.header import FLOATS
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.quantised import PackedWeight
from adaptry.compute.merging.dequantisation import SummedLoras
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.merging.peft_rounding import round_as_peft
from adaptry.compute.merging.tensor_changes import ChangeSet, TensorChanges
from adaptry.compute.recipes.merge import Dtype, Rounding
from adaptry.core.lazy_dataclass import dataclass

PackedByPosition = Mapping[tuple[str, int], PackedWeight]
"""Quantised weights by the file and position of their codes, since replicated layers share names."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Options for all tensors of a result."""

    dtype: Dtype | None
    rounding: Rounding
    packed: PackedByPosition


def output_tensors(
    checkpoint: HfCheckpoint, how: OutputOptions, wanted: ChangeSet, rows: Mapping[str, int]
) -> Iterator[OutputTensor]:
    """Every tensor of the result, including added ones, in the order of the base's files."""
    for name in _in_file_order(checkpoint):
        yield _output_tensor(name, name, checkpoint, how, wanted.for_tensor(name), rows.get(name))
        for new, changes in wanted.added_tensors(name):
            yield _output_tensor(new, name, checkpoint, how, changes, rows.get(name))


def _in_file_order(checkpoint: HfCheckpoint) -> Iterable[str]:
    """The names of the result, ordered so that each file is read sequentially and a layer's copies are
    adjacent.
    """
    number = {name: place for place, name in enumerate(checkpoint.shards)}
    return sorted(
        checkpoint.tensors,
        key=lambda name: (number[checkpoint.shard_of[name]], checkpoint.tensors[name].start),
    )


def _output_tensor(
    name: str,
    source: str,
    checkpoint: HfCheckpoint,
    how: OutputOptions,
    wanted: TensorChanges,
    rows: int | None,
) -> OutputTensor:
    """A tensor that has no position in a file yet."""
    info, shard = checkpoint.tensors[source], checkpoint.shard_of[source]
    kept = how.dtype is None or info.dtype not in FLOATS
    dtype = info.dtype if kept else str(how.dtype)
    own = how.packed.get((shard, info.start))
    if how.rounding == "peft":
        wanted = round_as_peft(wanted, info.dtype, dtype)
    updates, changes, beside = wanted.updates, wanted.changes, wanted.bias
    if own and updates:  # dequantised tensors are in memory as a whole
        updates, changes = (), (SummedLoras(updates, wanted.is_transposed),)
    if beside:
        beside = replace(beside, packed=how.packed.get((beside.shard, beside.info.start)))
    return OutputTensor(
        name=name,
        shard=shard,
        source=info,
        dtype=dtype,
        offset=0,
        updates=updates,
        is_transposed=wanted.is_transposed,
        changes=changes,
        bias=beside,
        rows=rows,
        packed=own,
    )
