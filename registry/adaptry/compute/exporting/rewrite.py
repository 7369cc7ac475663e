"""Rewrites an adapter with other names or another config: a lazy adapter that copies tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, Json, LazyAdapter, ParentAdapter
from adaptry.compute.lazy_adapters.lora import base_claim
from adaptry.compute.lazy_adapters.whole_weights import tokenizer_of

if TYPE_CHECKING:
    from torch import Tensor

RenameFunction = Callable[[str], str | None]
"""A function from a tensor's name to its new name; None drops the tensor."""


def rewrite_adapter(
    parent: ParentAdapter,
    recipe: Json,
    fields: Json | None = None,
    name: RenameFunction = lambda tensor: tensor,
    figures: Mapping[str, Mapping[str, float]] | None = None,
    notes: tuple[str, ...] = (),
) -> LazyAdapter:
    """`parent` with `fields` replaced in its config, and its tensors renamed. The tensors of a module form
    one `ComputedModule`, with its `figures`, if there are any.
    """
    adapter = parent.adapter
    names = {old: new for old in adapter.tensors if (new := name(old)) is not None}
    return LazyAdapter(
        parents=(parent,),
        recipe=recipe,
        names=tuple(names.values()),
        compute=lambda: _copied(adapter, names, figures or {}),
        config=lambda shapes: {**adapter.config.fields, **(fields or {})},
        base=base_claim([parent]),
        extra_files=tokenizer_of(adapter),
        notes=notes,
    )


def _copied(
    adapter: Adapter, names: Mapping[str, str], figures: Mapping[str, Mapping[str, float]]
) -> Iterator[ComputedModule]:
    modules = {tensor: module.name for module in adapter.spec.modules for tensor in module.tensors.values()}
    groups: dict[str, dict[str, str]] = {}
    for old, new in names.items():
        groups.setdefault(modules.get(old, old), {})[old] = new
    for module, renamed in groups.items():
        yield ComputedModule(
            module, {new: read_tensor(adapter, old) for old, new in renamed.items()}, figures.get(module, {})
        )


def read_tensor(adapter: Adapter, name: str) -> Tensor:
    """One tensor, in its stored shape and dtype."""
    from adaptry.compute.tensors.adapter_tensors import as_tensor

    return as_tensor(adapter.tensor_bytes(name), adapter.tensors[name])
