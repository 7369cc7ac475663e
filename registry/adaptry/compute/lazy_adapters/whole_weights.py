"""Selects the parent from which a result gets its whole weights (saved modules, biases, token rows).

Two heads cannot be added. If only one parent has whole weights, or all have the same bytes, they are copied
unchanged; otherwise the caller chooses a parent, or none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.content import Content
from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.spec import ExtraWeight
from adaptry.checks.finding_text import verb_form
from adaptry.compute.lazy_adapters.lazy_adapter import Json, ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.core.display import format_count
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
    """The whole weights of a result: tensors of `adapter` by their names in the result's file, the config's
    fields about these tensors, and the tokenizer that belongs to them. `label` is the user's name of
    `adapter`.
    """

    adapter: Adapter | None = None
    label: str = ""
    extras: Mapping[str, ExtraWeight] = field(default_factory=dict)
    fields: Json = field(default_factory=dict)
    extra_files: Mapping[str, Content] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.extras)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors as stored in the file, one at a time."""
        from adaptry.compute.tensors.adapter_tensors import as_tensor

        for name, extra in self.extras.items():
            assert self.adapter is not None
            stored = self.adapter.tensors[extra.tensor]
            yield name, as_tensor(self.adapter.tensor_bytes(extra.tensor), stored)


NO_WHOLE_WEIGHTS = WholeWeights()


def choose_whole_weights(parents: Sequence[ParentAdapter], choice: str | None = None) -> WholeWeights:
    """The whole weights of a result derived from `parents`.

    `choice` is the label of a parent, `none` to leave them out, or None for no choice. Raises `CheckFailed`
    if several parents have different ones and none is chosen, or if the choice is not a parent.
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


def place_beside(whole: WholeWeights, sites: Sequence[WeightSite], task: object) -> WholeWeights:
    """The whole weights of a result that also has LoRAs at `sites`, for a model of the type `task`.

    A LoRA moves the module's own parameters into `base_layer`, and PEFT ignores a bias under its previous
    name. Raises `CheckFailed` if a site is in a module that is saved whole: PEFT ignores its LoRA.
    """
    if whole.adapter is None:
        return whole
    config = AdapterConfig({**whole.fields, "peft_type": "LORA", "task_type": task})
    rows = {extra.target for extra in whole.extras.values() if extra.kind == "token_rows"}
    for site in sites:
        if config.is_saved(site.path) or f"{site.path}.weight" in rows:
            raise CheckFailed(
                f"{whole.label} has whole weights for {site.path}, which another input updates, and PEFT does"
                " not do both in one adapter: pass --whole-weights none to leave the whole weights out, or"
                f" set the weights of the other inputs at {site.path} to 0 in a recipe's modules"
            )
    wrappers = Counter(site.path.replace(".base_layer", "") for site in sites)
    placed = {_name_beside(extra, wrappers): extra for extra in whole.extras.values()}
    return replace(whole, extras=placed)


def _name_beside(extra: ExtraWeight, wrappers: Mapping[str, int]) -> str:
    if extra.kind not in ("bias", "saved_embedding") or ".token_adapter." in extra.tensor:
        return extra.tensor
    parts = extra.target.split(".")
    paths = accumulate(parts, "{}.{}".format)
    return PREFIX + ".".join(
        part + ".base_layer" * wrappers.get(path, 0) for part, path in zip(parts, paths, strict=True)
    )


def tokenizer_of(adapter: Adapter) -> Mapping[str, Content]:
    """The tokenizer's files of an adapter, which belong to its vocabulary."""
    return {name: adapter.content for name in _TOKENIZER if name in adapter.content.sizes}


def _of(parent: ParentAdapter, inputs: int) -> WholeWeights:
    adapter = parent.adapter
    extras = {extra.tensor: extra for extra in adapter.spec.extras}
    if not extras:
        return NO_WHOLE_WEIGHTS
    fields = {key: adapter.config.fields[key] for key in _FIELDS if key in adapter.config.fields}
    count, are = format_count(len(extras), "whole weight"), verb_form(len(extras), "is", "are")
    note = f"{count} {are} copied unchanged from {parent.label} (first: {adapter.spec.extras[0].target})"
    notes = (note,) if inputs > 1 else ()
    return WholeWeights(adapter, parent.label, extras, fields, tokenizer_of(adapter), notes)


def _are_same(parents: Sequence[ParentAdapter]) -> bool:
    """Whether all have the same bytes for the same targets."""
    first = _bytes_of(parents[0].adapter)
    return all(_bytes_of(parent.adapter) == first for parent in parents[1:])


def _bytes_of(adapter: Adapter) -> dict[str, tuple[str, bytes]]:
    return {
        extra.target: (adapter.tensors[extra.tensor].dtype, adapter.tensor_bytes(extra.tensor))
        for extra in adapter.spec.extras
    }
