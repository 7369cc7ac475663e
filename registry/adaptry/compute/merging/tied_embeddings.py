"""The two sides of a tied embedding: one tensor on disk that the model reads as embedding and as output head.

A live adapter may change one side alone, and PEFT's merge then writes both, so that the merged model answers
otherwise than the adapter did. Here each side gets what the live adapter does to it; where the two come to
differ, the result has a head of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.extras import token_rows
from adaptry.adapters.spec import ModuleSpec
from adaptry.adapters.tensor_names import INPUT_EMBEDDINGS, input_embedding, is_output_head
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ExtraTarget, ModuleMap, TargetTensor
from adaptry.compute.merging.fitting import WeightedAdapter
from adaptry.compute.merging.tied_names import find_tied_names
from adaptry.core.errors import Unsupported

_WRITERS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForMaskedLM")
"""Ends of the names of models that have an output head."""


@dataclass(frozen=True, slots=True)
class TiedSide:
    """A tensor of the result: `name`, with the values of the base's `tensor`, which it mostly is itself."""

    tensor: str
    name: str


class TiedSides:
    """Which sides there are, and whether they have come apart."""

    def __init__(self, checkpoint: HfCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._ties = find_tied_names(checkpoint)
        own = f"{self._ties.head}.weight"
        self._stored_head = next(
            (name for name in checkpoint.tensors if is_output_head(name) or name == own), None
        )
        self._stored_embedding = input_embedding(checkpoint.tensors)
        self._tied: set[str] = set()
        self.is_untied = False

    def stored_side(self, tensor: str) -> TiedSide:
        """The side that is in the base's files under its own name."""
        return TiedSide(tensor, tensor)

    def is_tied(self, target: TargetTensor) -> bool:
        """Also an embedding's copy under the head's name, as older tools wrote: it is tied when loaded."""
        is_copy = target.tensor == self._stored_head and not is_output_head(target.tensor)
        return target.tied or (is_copy and self._checkpoint.config.get("tie_word_embeddings") is not False)

    def is_declared_tied(self, tensor: str) -> bool:
        """Whether `tensor` is the embedding of a base whose config ties it, though a head is stored.

        PEFT goes by the config where a LoRA has rows of tokens, and sets them in both.
        """
        is_tied = self._checkpoint.config.get("tie_word_embeddings") is True
        return is_tied and self._stored_head is not None and tensor == self._stored_embedding

    def both_sides(self, tensor: str) -> tuple[TiedSide, ...]:
        """The sides of a tied `tensor`, for a change of all of them."""
        self._tied.add(tensor)
        copies = (TiedSide(tensor, f"{copy}.weight") for copy in self._ties.copies)
        return self.stored_side(self._stored_embedding or tensor), self._head(tensor), *copies

    def one_side(self, entry: WeightedAdapter, tensor: str, path: str, is_head: bool) -> tuple[TiedSide]:
        """One side of a tied `tensor`, that of the module `path`, changed alone. Raises `Unsupported`."""
        self._check_untying(entry, path, is_head)
        self._tied.add(tensor)
        self.is_untied = self._ties.has_head
        if is_head:
            return (self._head(tensor),)
        if path in self._ties.copies:
            return (TiedSide(tensor, f"{path}.weight"),)
        return (self.stored_side(self._stored_embedding or tensor),)

    def added_sides(self, tensor: str) -> Iterator[TiedSide]:
        """What the result gets beside the base's `tensor` if the ends came apart: what the base lacks."""
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

    def _check_untying(self, entry: WeightedAdapter, path: str, is_head: bool) -> None:
        """Raises `Unsupported` where no name is known by which the result could have this end alone."""
        ties, model_type = self._ties, self._checkpoint.config.get("model_type")
        if not ties.has_head:
            return
        if ties.head is None or (is_head and self._stored_head is None and path != ties.head):
            raise Unsupported(
                f"{entry.label} changes {path}, which a {model_type} ties to other weights, and the name is"
                " not known here under which such a model would load it untied: merge it with PEFT, which"
                " changes all of them"
            )
        if ties.is_several and not is_head and path not in ties.copies:
            raise Unsupported(
                f"{entry.label} changes the embedding {path} alone, which a {model_type} ties to those of its"
                " encoder and decoder and its head; to untie it is not there yet: merge it with PEFT, which"
                " changes all of them"
            )

    def check_known(self, entry: WeightedAdapter, tensor: str, path: str) -> None:
        """Raises `Unsupported` if `tensor`, taken to stand alone, may be what an unseen head is tied to."""
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
                f"{entry.label} changes {path}, which has a row for each token; the base has no output head"
                f" of its own, and how a {config.get('model_type')} ties one is not known here:"
                " merge it with PEFT"
            )

    def check_bias(self, entry: WeightedAdapter, module: ModuleSpec) -> None:
        """Raises `Unsupported` if a tied head's update changes its bias, which has no weight of its own."""
        method = METHODS[entry.adapter.spec.method]
        has_bias = not self._checkpoint.tensors.keys().isdisjoint((f"{module.path}.bias", self._ties.bias))
        if has_bias and method.bias is not None and method.changes_bias(module):
            raise Unsupported(
                f"{entry.label} changes the bias of {module.path} too, a head that is tied to the embeddings,"
                " which is not merged here: merge it with PEFT"
            )


def sides_of_extra(
    entry: WeightedAdapter, extra: ExtraTarget, module_map: ModuleMap, sides: TiedSides
) -> tuple[TiedSide, ...]:
    """What a full weight replaces. PEFT unties copies in `modules_to_save`; others are written through."""
    if not extra.tied:
        if extra.extra.kind == "token_rows" and sides.is_declared_tied(extra.tensor):
            return (
                sides.both_sides(extra.tensor)
                if entry.adapter.spec.method == "lora"
                else (sides.stored_side(extra.tensor),)
            )
        sides.check_known(entry, extra.tensor, extra.extra.target.removesuffix(".weight"))
        return (sides.stored_side(extra.tensor),)
    path = extra.extra.target.removesuffix(".weight")
    if extra.extra.kind == "token_rows" and _has_other_rows(entry.adapter, extra, module_map):
        return sides.one_side(entry, extra.tensor, path, not _is_embedding(path))
    if extra.extra.kind == "module" and not entry.adapter.config.flag("ensure_weight_tying"):
        return sides.one_side(entry, extra.tensor, path, not _is_embedding(path))
    return sides.both_sides(extra.tensor)


def sides_of_module(
    entry: WeightedAdapter, target: TargetTensor, module_map: ModuleMap, sides: TiedSides
) -> tuple[TiedSide, ...]:
    """What an update changes. With `ensure_weight_tying` the embedding's is both's, the head's the same."""
    if not sides.is_tied(target):
        sides.check_known(entry, target.tensor, target.module.path)
        return (sides.stored_side(target.tensor),)
    is_head = target.module.kind != "embedding" and not _is_embedding(target.module.path)
    if entry.adapter.config.flag("ensure_weight_tying") and _is_trained_as_one(entry.adapter, module_map):
        return () if is_head else sides.both_sides(target.tensor)
    if is_head:
        sides.check_bias(entry, target.module)
    return sides.one_side(entry, target.tensor, target.module.path, is_head)


def _has_other_rows(adapter: Adapter, extra: ExtraTarget, module_map: ModuleMap) -> bool:
    """Whether the adapter has rows of both sides, and not the same: then PEFT trains each side by itself."""
    rows = {
        token_rows(adapter.config, other.extra.target)
        for other in module_map.extras
        if other.extra.kind == "token_rows" and other.tensor == extra.tensor
    }
    return len(rows) > 1


def _is_trained_as_one(adapter: Adapter, module_map: ModuleMap) -> bool:
    """Whether the embedding's factors are the head's as well: where there are both, with the same numbers.

    PEFT ties them as it makes the adapter. On a half-precision base it then holds them in float32, each in a
    tensor of its own, and from there on the two are trained apart.
    """
    modules = {other.module.kind == "embedding": other.module for other in module_map.placed if other.tied}
    embedding, head = modules.get(True), modules.get(False)
    if embedding is None or head is None:
        return embedding is not None
    pairs = (("A", "embedding_B"), ("B", "embedding_A"))
    return all(
        _is_turned(adapter, head.tensors[own], embedding.tensors[other])
        for own, other in pairs
        if own in head.tensors and other in embedding.tensors
    )


def _is_turned(adapter: Adapter, name: str, other: str) -> bool:
    from adaptry.compute.tensors.adapter_tensors import as_tensor

    first, second = (as_tensor(adapter.tensor_bytes(each), adapter.tensors[each]) for each in (name, other))
    return first.shape == second.shape[::-1] and bool((first == second.T).all())


def _is_embedding(path: str) -> bool:
    return path.rpartition(".")[2] in INPUT_EMBEDDINGS
