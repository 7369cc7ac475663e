"""Selects the parent whose whole weights (saved modules, biases, token rows) a result gets.

Two heads cannot be added. If only one parent has whole weights, or all have the same bytes, they are copied
unchanged; otherwise the caller chooses a parent, or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.content import Content
from adaptry.compute.lazy_adapters.lazy_adapter import Json, ParentAdapter
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

DROP = "none"
"""The choice that leaves all whole weights out."""

_FIELDS = ("modules_to_save", "bias", "trainable_token_indices", "ensure_weight_tying")
_TOKENIZER = (
    *(
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json"),
)


@dataclass(frozen=True, slots=True)
class WholeWeights:
    """The whole weights of a result: `names` of `adapter`'s tensors, the config's fields about them, and the
    tokenizer that belongs to them.
    """

    adapter: Adapter | None = None
    names: tuple[str, ...] = ()
    fields: Json = field(default_factory=dict)
    extra_files: Mapping[str, Content] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors as stored in the file, one at a time."""
        from adaptry.compute.tensors.adapter_tensors import as_tensor

        for name in self.names:
            assert self.adapter is not None
            yield name, as_tensor(self.adapter.tensor_bytes(name), self.adapter.tensors[name])


NO_WHOLE_WEIGHTS = WholeWeights()


def choose_whole_weights(parents: Sequence[ParentAdapter], choice: str | None = None) -> WholeWeights:
    """The whole weights of a result derived from `parents`.

    `choice` is the label of a parent, `none` to leave them out, or None if there is no choice to make. Raises
    `CheckFailed` if several parents have different ones and none is chosen, or if the choice is not a parent.
    """
    bringing = [parent for parent in parents if parent.adapter.spec.extras]
    if choice == DROP:
        left = [parent.label for parent in bringing]
        return WholeWeights(
            notes=(f"left out, as requested: the whole weights of {', '.join(left)}",) if left else ()
        )
    if choice is not None:
        chosen = [parent for parent in parents if parent.label == choice]
        if not chosen:
            raise CheckFailed(
                f"whole weights were requested from {choice!r}, which is not one of the inputs "
                f"({', '.join(parent.label for parent in parents)})"
            )
        return _of(chosen[0], len(parents))
    if not bringing:
        return NO_WHOLE_WEIGHTS
    if len(bringing) > 1 and not _are_same(bringing):
        raise CheckFailed(
            f"{' and '.join(parent.label for parent in bringing)} have different whole weights (first:"
            f" {bringing[0].adapter.spec.extras[0].target}), which cannot be combined: pass --whole-weights"
            " LABEL to use those of one input, or --whole-weights none to leave them out"
        )
    return _of(bringing[0], len(parents))


def tokenizer_of(adapter: Adapter) -> Mapping[str, Content]:
    """The tokenizer's files of an adapter, which belong to its vocabulary."""
    return {name: adapter.content for name in _TOKENIZER if name in adapter.content.sizes}


def _of(parent: ParentAdapter, inputs: int) -> WholeWeights:
    adapter = parent.adapter
    names = tuple(extra.tensor for extra in adapter.spec.extras)
    if not names:
        return NO_WHOLE_WEIGHTS
    fields = {key: adapter.config.fields[key] for key in _FIELDS if key in adapter.config.fields}
    note = (
        f"{len(names)} whole weights are copied unchanged from {parent.label} (first:"
        f" {adapter.spec.extras[0].target})"
    )
    return WholeWeights(adapter, names, fields, tokenizer_of(adapter), (note,) if inputs > 1 else ())


def _are_same(parents: Sequence[ParentAdapter]) -> bool:
    """Whether all have the same bytes for the same targets."""
    first = _bytes_of(parents[0].adapter)
    return all(_bytes_of(parent.adapter) == first for parent in parents[1:])


def _bytes_of(adapter: Adapter) -> dict[str, tuple[str, bytes]]:
    return {
        extra.target: (adapter.tensors[extra.tensor].dtype, adapter.tensor_bytes(extra.tensor))
        for extra in adapter.spec.extras
    }
