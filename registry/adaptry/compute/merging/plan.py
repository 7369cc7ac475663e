"""The plan of a merge, made before weights are read.

`plan_merge` takes headers and configs, and returns output files as lists of tensors: bytes to copy, weights
to merge. Sizes, names and dtypes of the result are known here, and everything that does not fit fails here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adaptry.adapters.header import FLOATS, PLAIN_FLOATS
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.quantised import open_logical_view
from adaptry.compute.merging.base_copy import BaseCopy, choose_copy, dtype_notes, dtype_of_int8
from adaptry.compute.merging.bound_input import BoundInputs, bind_inputs
from adaptry.compute.merging.combined_changes import MethodChoice, combine_changes
from adaptry.compute.merging.dequantisation import dequantised_view
from adaptry.compute.merging.layout import OutputFile, OutputTensor, plan_files
from adaptry.compute.merging.output_tensors import OutputOptions, output_tensors
from adaptry.compute.merging.tensor_changes import ChangeSet
from adaptry.compute.merging.tied_embeddings import TiedSides, with_sides
from adaptry.compute.merging.tied_names import find_tied_names
from adaptry.compute.merging.weighted_adapter import WeightedAdapter, seen_as_peft
from adaptry.compute.recipes.merge import BaseCopyKind, Dtype, Rounding
from adaptry.core.digest import Digest
from adaptry.core.display import format_count, format_size, html_table, short_repr
from adaptry.core.errors import Unsupported
from adaptry.core.lazy_dataclass import dataclass

_UNTIED = (
    "the base ties its output head to its embeddings, but an adapter changes only one of them: the result has"
    " a separate head, so that it behaves like the adapter (PEFT's merge would change both)"
)


@dataclass(frozen=True, slots=True)
class MergePlan:
    """`base` is the base's id. `notes` are sentences for the user. `is_untied`: the result has a separate
    head. `checkpoint` is the base for the merge (deeper than its files if layers are replicated, plain if it
    is dequantised). `vocabulary` is the new number of tokens, if it changes. `base_copy` is the chosen copy,
    if one is quantised.
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
        """The size of the checkpoint's weight files, in bytes."""
        return sum(file.size for file in self.files)

    @property
    def changed_tensors(self) -> Iterator[OutputTensor]:
        """The tensors whose bytes differ from the base's: merged or cast."""
        return (tensor for file in self.files for tensor in file.tensors if not tensor.is_copy)

    @property
    def adapted_count(self) -> int:
        """The number of weights that adapters change."""
        return sum(tensor.is_adapted for file in self.files for tensor in file.tensors)

    def __repr__(self) -> str:
        return short_repr(self, *self._summary(), "nothing is written yet")

    def _repr_html_(self) -> str:
        inputs = ", ".join(f"{each.label} × {each.weight:g}" for each in self.inputs)
        rows = [(file.name, format_size(file.size)) for file in self.files]
        title = f"Merge of {inputs}: {', '.join(self._summary())}"
        return html_table(title, ("file", "size"), rows, self.notes)

    def _summary(self) -> tuple[str, ...]:
        return (
            f"{format_count(self.adapted_count, 'weight')} would change",
            format_count(len(self.files), "file"),
            format_size(self.size),
        )


def plan_merge(
    checkpoint: HfCheckpoint,
    inputs: Sequence[WeightedAdapter],
    *,
    dtype: Dtype | None = None,
    max_shard_size: int | None = None,
    other_base: bool = False,
    resize_vocab: bool = False,
    base_copy: BaseCopyKind | None = None,
    base_evidence: str = "",
    method: MethodChoice | None = None,
    rounding: Rounding = "float32",
) -> MergePlan:
    """Plans the merge of `inputs` into `checkpoint`, as their weighted sum or by another `method`.

    `other_base` allows a base other than an input's, if the shapes fit. `resize_vocab` allows an input with a
    larger vocabulary. `base_copy` chooses the copy, if one is quantised. `base_evidence` is the evidence that
    the base is the original of the named one. `rounding`: see `peft_rounding`. Raises `Unsupported` (a method
    or variant that cannot be merged, a base that cannot be dequantised here) and `CheckFailed` (modules or
    shapes that do not fit, no chosen copy); each error names the problem, the place and the remedy.
    """
    view = open_logical_view(checkpoint)
    chosen, notes = choose_copy(view, inputs, base_copy, base_evidence)
    if chosen:
        notes.insert(0, chosen.reason)
    base = fingerprint(checkpoint)
    seen = [seen_as_peft(entry, base) for entry in inputs]
    inputs = [entry for entry, _ in seen]
    notes += [note for _, found in seen for note in found]
    if view.packed:
        checkpoint = dequantised_view(view, dtype_of_int8(view, dtype))
        notes += dtype_notes(view, dtype)
    if dtype:
        _require_castable(checkpoint, dtype)
    bound = bind_inputs(inputs, checkpoint, base, resize_vocab=resize_vocab, other_base=other_base)
    checkpoint, rows = bound.checkpoint, bound.rows
    wanted = _changes(bound, method, other_base)
    notes += bound.notes
    if method is not None:
        notes.append(f"combined by {method.method}, weight by weight, without truncation to a rank")
    packed = {(weight.codes.shard, weight.codes.info.start): weight for weight in view.packed.values()}
    how = OutputOptions(dtype, rounding, packed)
    tensors = list(output_tensors(checkpoint, how, wanted, rows))
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


def _require_castable(checkpoint: HfCheckpoint, dtype: Dtype) -> None:
    """Raises `Unsupported` if a weight that must be cast to `dtype` has a special float dtype."""
    floats = [(name, info.dtype) for name, info in checkpoint.tensors.items() if info.dtype in FLOATS]
    odd = next(((name, own) for name, own in floats if own not in PLAIN_FLOATS), None)
    if odd:
        raise Unsupported(f"--dtype can cast only F32, F16 and BF16 weights, but {odd[0]} is {odd[1]}")


def _changes(bound: BoundInputs, method: MethodChoice | None, other_base: bool) -> ChangeSet:
    """The changes of all inputs: for a weighted sum, the changes of each input; otherwise the combined
    changes that the method computes.
    """
    sides = TiedSides(bound.checkpoint, find_tied_names(bound.checkpoint))
    entries = bound.inputs if method is None else [own.whole_weights for own in bound.inputs]
    sided = [with_sides(entry, sides) for entry in entries]
    wanted = ChangeSet(bound.checkpoint, sides)
    for own in sided:
        wanted.add(own)
    if method is not None:
        wanted.add_combined(combine_changes(method, bound.inputs, other_base))
    return wanted
