"""Everything a merge decides, before a weight is read.

`plan_merge` takes headers and configs and gives output files as lists of tensors: bytes to copy, weights to
merge. Sizes, names and dtypes of the result are known here, and whatever does not fit fails here or not at
all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.header import FLOATS
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ModuleMap
from adaptry.bases.quantised import PackedWeight, open_logical_view
from adaptry.compute.merging.base_copy import BaseCopy, choose_copy, dtype_notes, dtype_of_int8
from adaptry.compute.merging.combined_changes import MethodChoice, combine_changes
from adaptry.compute.merging.dequantisation import SummedLoras, dequantised_view
from adaptry.compute.merging.fitting import PLAIN, WeightedAdapter, check_base, fit, seen_as_peft
from adaptry.compute.merging.layout import OutputFile, OutputTensor, plan_files
from adaptry.compute.merging.peft_rounding import round_as_peft
from adaptry.compute.merging.replication import replicate_layers
from adaptry.compute.merging.tensor_changes import ChangeSet, TensorChanges
from adaptry.compute.merging.vocabulary import check_single_input
from adaptry.compute.recipes.merge import BaseCopyKind, Dtype, Rounding
from adaptry.core.digest import Digest
from adaptry.core.errors import Unsupported

_UNTIED = (
    "the base ties its output head to its embeddings and an adapter changes one of them alone: the result has"
    " a head of its own, so that it answers as the adapter does (PEFT's merge would change both)"
)


PackedByPosition = Mapping[tuple[str, int], PackedWeight]
"""Quantised weights by where their codes lie: file and position. Replicated layers share names."""


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What will be done. `base` is the base's id; `notes` are sentences for the reader; `is_untied`: the
    result has a head of its own. `checkpoint` is the base as it is merged into (deeper than its files, where
    layers are replicated, and plain where it is dequantised); `vocabulary` is the new number of tokens, where
    there is one; `base_copy` which copy is merged into, where one is quantised.
    """

    checkpoint: HfCheckpoint
    base: Digest
    inputs: tuple[WeightedAdapter, ...]
    files: tuple[OutputFile, ...]
    dtype: Dtype | None
    is_untied: bool
    vocabulary: int | None
    notes: tuple[str, ...]
    base_copy: BaseCopy | None = None
    rounding: Rounding = "float32"

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def changed_tensors(self) -> Iterator[OutputTensor]:
        """The tensors whose bytes are not the base's: merged, or cast."""
        return (tensor for file in self.files for tensor in file.tensors if not tensor.is_copy)

    @property
    def adapted_count(self) -> int:
        """How many weights change."""
        return sum(tensor.is_adapted for file in self.files for tensor in file.tensors)


def plan_merge(
    checkpoint: HfCheckpoint,
    inputs: Sequence[WeightedAdapter],
    *,
    dtype: Dtype | None = None,
    max_shard_size: int | None = None,
    other_base: bool = False,
    resize_vocab: bool = False,
    base_copy: BaseCopyKind | None = None,
    found: str = "",
    method: MethodChoice | None = None,
    rounding: Rounding = "float32",
) -> MergePlan:
    """How `inputs` are merged into `checkpoint`: as their weighted sum, or combined by another `method`.

    `other_base`: also into another model than an input is known to be for, if the shapes fit. `resize_vocab`:
    also where an input brings a larger vocabulary. `base_copy`: into which copy, where one is quantised.
    `found`: how it was found, where it is the original of the base that was named. `rounding`: see
    `peft_rounding`. Raises `Unsupported` (a method or variant that cannot be merged, a base that is not
    dequantised here) and `CheckFailed` (modules or shapes that do not fit, a copy that is not chosen); each
    names what, where and the way out.
    """
    view = open_logical_view(checkpoint)
    chosen, notes = choose_copy(view, inputs, base_copy, found)
    if chosen:
        notes.insert(0, chosen.reason)
    base = fingerprint(checkpoint)
    inputs, told = _in_pefts_layout(inputs, base)
    notes += told
    if view.packed:
        checkpoint = dequantised_view(view, dtype_of_int8(view, dtype))
        notes += dtype_notes(view, dtype)
    if dtype and (odd := _not_plain(checkpoint)):
        raise Unsupported(
            f"--dtype casts F32, F16 and BF16 weights; {odd} is {checkpoint.tensors[odd].dtype}"
        )
    checkpoint = replicate_layers(checkpoint, [(entry.label, entry.adapter.config) for entry in inputs])
    gathered = _gather(checkpoint, base, inputs, other_base, resize_vocab, method)
    wanted, rows = gathered.wanted, gathered.rows
    notes += gathered.notes
    packed = {(weight.codes.shard, weight.codes.info.start): weight for weight in view.packed.values()}
    how = OutputOptions(dtype, rounding, packed)
    tensors = list(_output_tensors(checkpoint, how, wanted, rows))
    files = plan_files(checkpoint.shards, tensors, max_shard_size, checkpoint.stem)
    if wanted.is_untied:
        notes.insert(0, _UNTIED)
    vocabulary = max(rows.values(), default=None)
    return MergePlan(
        checkpoint,
        base.id,
        tuple(inputs),
        files,
        dtype,
        wanted.is_untied,
        vocabulary,
        tuple(notes),
        chosen,
        rounding,
    )


@dataclass(frozen=True, slots=True)
class GatheredChanges:
    """What all inputs want of the base's tensors, the rows of those that grow, and what is to be told."""

    wanted: ChangeSet
    rows: Mapping[str, int]
    notes: tuple[str, ...]


def _gather(
    checkpoint: HfCheckpoint,
    base: BaseRecord,
    inputs: Sequence[WeightedAdapter],
    other_base: bool,
    resize_vocab: bool,
    method: MethodChoice | None,
) -> GatheredChanges:
    """Raises what `plan_merge` raises for inputs that do not fit."""
    wanted = ChangeSet(checkpoint)
    notes: list[str] = []
    rows: dict[str, int] = {}
    placements: list[tuple[WeightedAdapter, ModuleMap]] = []
    for entry in inputs:
        fitted = fit(entry, checkpoint, base, resize_vocab)
        notes += [*fitted.notes, *check_base(entry, base, other_base)]
        placements.append((entry, fitted.placement))
        if method is None:
            wanted.add(entry, fitted.placement)
        if fitted.rows:
            check_single_input(entry.label, entry.weight, len(inputs))
            rows.update(fitted.rows)
            notes.append(
                f"the result has a vocabulary of {max(rows.values()):,}:"
                f" take {entry.label}'s tokenizer with it"
            )
    if method is not None:
        wanted.add_combined(placements, combine_changes(method, placements, other_base))
        notes.append(f"combined by {method.method}, weight by weight, and not brought to a rank")
    return GatheredChanges(wanted, rows, tuple(notes))


def _in_pefts_layout(
    inputs: Sequence[WeightedAdapter], base: BaseRecord
) -> tuple[list[WeightedAdapter], list[str]]:
    """The inputs as PEFT would have written them, and what is to be told of that."""
    seen = [seen_as_peft(entry, base) for entry in inputs]
    return [entry for entry, _ in seen], [note for _, notes in seen for note in notes]


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What holds for every tensor of a result."""

    dtype: Dtype | None
    rounding: Rounding
    packed: PackedByPosition


def _output_tensors(
    checkpoint: HfCheckpoint, how: OutputOptions, wanted: ChangeSet, rows: Mapping[str, int]
) -> Iterator[OutputTensor]:
    """Every tensor of the result, and what comes beside it, in the order of the base's files."""
    for name in _in_file_order(checkpoint):
        yield _output_tensor(name, name, checkpoint, how, wanted.for_tensor(name), rows.get(name))
        for new, changes in wanted.added_tensors(name):
            yield _output_tensor(new, name, checkpoint, how, changes, rows.get(name))


def _not_plain(checkpoint: HfCheckpoint) -> str | None:
    floats = ((name, info.dtype) for name, info in checkpoint.tensors.items() if info.dtype in FLOATS)
    return next((name for name, dtype in floats if dtype not in PLAIN), None)


def _in_file_order(checkpoint: HfCheckpoint) -> Iterable[str]:
    """The names of the result, so that each file is read front to back and a layer's copies lie beside it."""
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
    """A tensor that has no place in a file yet."""
    info, shard = checkpoint.tensors[source], checkpoint.shard_of[source]
    kept = how.dtype is None or info.dtype not in FLOATS
    dtype = info.dtype if kept else str(how.dtype)
    own = how.packed.get((shard, info.start))
    if how.rounding == "peft":
        wanted = round_as_peft(wanted, info.dtype, dtype)
    updates, changes, beside = wanted.updates, wanted.changes, wanted.bias
    if own and updates:  # what is dequantised is there as a whole
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
