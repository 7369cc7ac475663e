"""The two sides of a tied embedding: one tensor on disk that the model uses as embedding and as output head.

A live adapter may change only one side. PEFT's merge then changes both, so the merged model gives different
answers than the adapter. Here each side gets the live adapter's change; if they then differ, the result has a
separate head.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods import METHODS
from adaptry.adapters.spec import ModuleSpec
from adaptry.adapters.tensor_names import input_embedding, is_input_embedding, is_output_head
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ExtraTarget, TargetTensor, has_own_rows
from adaptry.checks.binding.direct_weights import is_unused_copy
from adaptry.checks.binding.forced_ties import is_forced_tie, is_input_among_tied
from adaptry.compute.merging.bound_input import BoundInput
from adaptry.compute.merging.tied_names import TiedNames
from adaptry.core.errors import Unsupported
from adaptry.core.lazy_dataclass import dataclass

_WRITERS = (
    "ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForMaskedLM", "ForPreTraining", "MTModel",
    "ForSpeechToText", "ForTextToText",
)  # fmt: skip
"""Ends of the names of models that have an output head."""


@dataclass(frozen=True, slots=True)
class TiedSide:
    """A tensor of the result: `name`, with the values of the base's `tensor`, usually the same one."""

    tensor: str
    name: str


@dataclass(frozen=True, slots=True)
class SidedInput:
    """An input with the sides that each of its whole weights and modules changes."""

    entry: BoundInput
    extras: tuple[tuple[ExtraTarget, tuple[TiedSide, ...]], ...]
    modules: tuple[tuple[TargetTensor, tuple[TiedSide, ...]], ...]


class TiedSides:
    """The sides, and whether they have been untied."""

    def __init__(self, checkpoint: HfCheckpoint, ties: TiedNames) -> None:
        self._checkpoint = checkpoint
        self._ties = ties
        own = f"{self._ties.head}.weight"
        self._stored_head = next(
            (name for name in checkpoint.tensors if is_output_head(name) or name == own), None
        )
        self._stored_embedding = input_embedding(checkpoint.tensors)
        self._tied: set[str] = set()
        self.is_untied = False

    def stored_side(self, tensor: str) -> TiedSide:
        """The side that is stored in the base's files."""
        return TiedSide(tensor, tensor)

    def is_tied(self, target: TargetTensor) -> bool:
        """Whether the weight is tied, or is a copy of the embedding under the head's name, which older tools
        wrote.
        """
        is_copy = target.tensor == self._stored_head and not is_output_head(target.tensor)
        return target.tied or (is_copy and self._checkpoint.config.get("tie_word_embeddings") is not False)

    def is_declared_tied(self, tensor: str) -> bool:
        """Whether `tensor` is the embedding of a base whose config ties it although a head is stored; in
        memory, every config of T5's family does.

        If a LoRA has token rows, PEFT follows the config and sets them in both.
        """
        config, has_head = self._checkpoint.config, self._stored_head is not None
        is_tied = config.get("tie_word_embeddings") is True or is_forced_tie(config, has_head)
        return is_tied and has_head and tensor == self._stored_embedding

    @property
    def is_input_among_tied(self) -> bool:
        """Whether PEFT counts the input embedding among the modules that are tied to it."""
        return is_input_among_tied(self._checkpoint.config, self._checkpoint.tensors)

    @property
    def gives_rows(self) -> bool:
        """Whether PEFT also gives the head the rows that it trains in the embedding."""
        return self._ties.gives_rows

    def is_input(self, path: str) -> bool:
        """Whether the module is the model's own input embedding, although another module holds the weight."""
        return path == self._ties.input

    def check_rows(self, entry: BoundInput, tensor: str) -> None:
        """Raises `Unsupported` for rows of several users of a tied `tensor`, if one of these is the model's
        own input embedding: PEFT's live adapter and its merge then differ.
        """
        held = [each for each in entry.module_map.extras if each.extra.kind == "token_rows"]
        if self._ties.input and sum(each.tensor == tensor for each in held) > 1:
            raise Unsupported(
                f"{entry.label} trains token rows of several embeddings that are tied to {tensor}, for"
                " which PEFT's merge gives different values from the unmerged adapter: serve it with PEFT"
            )

    def has_rows_of_head(self, entry: BoundInput, but: tuple[int, ...]) -> bool:
        """Whether the input's rows for a stored head differ from `but`, the embedding's: PEFT then ties
        neither.
        """
        held = (extra for extra in entry.module_map.extras if extra.extra.kind == "token_rows")
        return any(extra.tensor == self._stored_head and extra.rows != but for extra in held)

    def both_sides(self, tensor: str) -> tuple[TiedSide, ...]:
        """All sides of a tied `tensor`, for a change of all of them."""
        self._tied.add(tensor)
        copies = (TiedSide(tensor, f"{copy}.weight") for copy in self._ties.copies)
        return self.stored_side(self._stored_embedding or tensor), self._head(tensor), *copies

    def one_side(self, entry: BoundInput, tensor: str, path: str, is_head: bool) -> tuple[TiedSide]:
        """The side of a tied `tensor` for the module `path`, which is changed separately. Raises
        `Unsupported`.
        """
        self._check_untying(entry, path, is_head)
        self._tied.add(tensor)
        self.is_untied = self._ties.has_head
        if is_head:
            return (self._head(tensor),)
        if path in self._ties.copies:
            return (TiedSide(tensor, f"{path}.weight"),)
        return (self.stored_side(self._stored_embedding or tensor),)

    def added_sides(self, tensor: str) -> Iterator[TiedSide]:
        """The sides of `tensor` that the base lacks and the result needs, if they were untied."""
        if not self.is_untied:
            return
        ties = self._ties
        if tensor in self._tied and self._stored_head is None:
            yield self._head(tensor)
            yield from (TiedSide(tensor, f"{copy}.weight") for copy in ties.copies)
        if tensor == ties.bias and f"{ties.head}.bias" not in self._checkpoint.tensors:
            yield TiedSide(tensor, f"{ties.head}.bias")

    def _head(self, tensor: str) -> TiedSide:
        if self._stored_head is not None:
            return self.stored_side(self._stored_head)
        return TiedSide(tensor, f"{self._ties.head}.weight")

    def _check_untying(self, entry: BoundInput, path: str, is_head: bool) -> None:
        """Raises `Unsupported` if it is unknown under which name the result would have this side
        separately.
        """
        ties, model_type = self._ties, self._checkpoint.config.get("model_type")
        if not ties.has_head:
            return
        if ties.head is None or (is_head and self._stored_head is None and path != ties.head):
            raise Unsupported(
                f"{entry.label} changes {path}, which models of type {model_type} tie to other weights, and"
                " the name under which they load it untied is unknown here: merge it with PEFT, which"
                " changes all of them"
            )
        if ties.is_several and not is_head and path not in ties.copies:
            raise Unsupported(
                f"{entry.label} changes only the embedding {path}, which models of type {model_type} tie to"
                " those of their encoder and decoder and their head; untying it is not supported: merge it"
                " with PEFT, which changes all of them"
            )

    def check_known(self, entry: BoundInput, tensor: str, path: str) -> None:
        """Raises `Unsupported` if a head that this table lacks may be tied to `tensor`."""
        config = self._checkpoint.config
        listed = config.get("architectures")
        is_written = any(
            str(name).endswith(_WRITERS) for name in (listed if isinstance(listed, list) else [])
        )
        shape = self._checkpoint.tensors[tensor].shape
        is_seen = self._stored_head is not None or self._stored_embedding is not None
        if is_seen or not is_written or config.get("tie_word_embeddings") is False:
            return
        if len(shape) == 2 and config.get("vocab_size") == shape[0]:
            raise Unsupported(
                f"{entry.label} changes {path}, which has a row for each token; the base stores no output"
                " head,"
                f" and how a {config.get('model_type')} ties one is unknown here:"
                " merge it with PEFT"
            )

    def check_bias(self, entry: BoundInput, module: ModuleSpec) -> None:
        """Raises `Unsupported` if a tied head's update changes its bias, which has no separate weight."""
        method = METHODS[entry.adapter.spec.method]
        has_bias = not self._checkpoint.tensors.keys().isdisjoint((f"{module.path}.bias", self._ties.bias))
        if has_bias and method.bias is not None and method.changes_bias(module):
            raise Unsupported(
                f"{entry.label} also changes the bias of {module.path}, a head that is tied to the"
                " embeddings,"
                " which is not supported here: merge it with PEFT"
            )


def with_sides(entry: BoundInput, sides: TiedSides) -> SidedInput:
    """The input with its sides; whole weights come before rows. Raises `Unsupported`."""
    rows = [extra for extra in entry.module_map.extras if extra.extra.kind == "token_rows"]
    whole = [extra for extra in entry.module_map.extras if extra.extra.kind != "token_rows"]
    replaced = [(extra, _sides_of_extra(entry, extra, sides)) for extra in whole]
    modules = [(target, sides_of_module(entry, target, sides)) for target in entry.module_map.placed]
    replaced += [(extra, _sides_of_extra(entry, extra, sides)) for extra in rows]
    return SidedInput(entry, tuple(replaced), tuple(modules))


def _sides_of_extra(entry: BoundInput, extra: ExtraTarget, sides: TiedSides) -> tuple[TiedSide, ...]:
    """The sides that a full weight replaces. PEFT unties copies in `modules_to_save`; others change both
    sides.
    """
    if is_unused_copy(entry.bound.base.facts, extra):
        return ()
    if not extra.tied:
        if extra.extra.kind == "token_rows" and sides.is_declared_tied(extra.tensor):
            is_one = entry.adapter.spec.method == "lora" and not sides.has_rows_of_head(entry, extra.rows)
            return sides.both_sides(extra.tensor) if is_one else (sides.stored_side(extra.tensor),)
        sides.check_known(entry, extra.tensor, extra.extra.target.removesuffix(".weight"))
        return (sides.stored_side(extra.tensor),)
    path = extra.extra.target.removesuffix(".weight")
    is_rows = extra.extra.kind == "token_rows"
    if is_rows:
        sides.check_rows(entry, extra.tensor)
    is_alone = has_own_rows(extra, entry.module_map) and not sides.is_input(path)
    is_alone = is_alone or (is_rows and not sides.gives_rows)
    is_alone = is_alone or (extra.extra.kind == "module" and not entry.bound.ties_saved)
    if is_alone:
        return sides.one_side(entry, extra.tensor, path, not is_input_embedding(path))
    return sides.both_sides(extra.tensor)


def sides_of_module(entry: BoundInput, target: TargetTensor, sides: TiedSides) -> tuple[TiedSide, ...]:
    """The sides that an update changes: both, if PEFT ties them (`ensure_weight_tying`)."""
    if not sides.is_tied(target):
        sides.check_known(entry, target.tensor, target.module.path)
        return (sides.stored_side(target.tensor),)
    is_head = target.module.kind != "embedding" and not is_input_embedding(target.module.path)
    if entry.bound.ties_updates and sides.is_input_among_tied:
        raise Unsupported(
            f"{entry.label} sets ensure_weight_tying, which PEFT applies to a part of this model's tied"
            " weights only: merge it with PEFT"
        )
    if entry.bound.ties_updates and _is_trained_as_one(entry):
        return () if is_head else sides.both_sides(target.tensor)
    if is_head:
        sides.check_bias(entry, target.module)
    return sides.one_side(entry, target.tensor, target.module.path, is_head)


def _is_trained_as_one(entry: BoundInput) -> bool:
    """Whether embedding and head share their factors: if the file has both, with the same numbers.

    PEFT ties them when it creates the adapter. On a half-precision base it then converts them to float32, as
    separate tensors, after which the two are trained separately.
    """
    modules = {
        other.module.kind == "embedding": other.module for other in entry.module_map.placed if other.tied
    }
    embedding, head = modules.get(True), modules.get(False)
    if embedding is None or head is None:
        return embedding is not None
    pairs = (("A", "embedding_B"), ("B", "embedding_A"))
    return all(
        _is_transposed(entry.adapter, head.tensors[own], embedding.tensors[other])
        for own, other in pairs
        if own in head.tensors and other in embedding.tensors
    )


def _is_transposed(adapter: Adapter, name: str, other: str) -> bool:
    from adaptry.compute.tensors.adapter_tensors import as_tensor

    first, second = (as_tensor(adapter.tensor_bytes(each), adapter.tensors[each]) for each in (name, other))
    return first.shape == second.shape[::-1] and bool((first == second.T).all())
