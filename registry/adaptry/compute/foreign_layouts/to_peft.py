"""Converts another tool's LoRA to PEFT's layout, as a view or as a lazy adapter.

Only names, orientation and the form of scales change. Features for which PEFT's arithmetic differs from the
tool's are refused, with a remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import FORMATS, PEFT, AdapterFormat
from adaptry.checks import check
from adaptry.compute.foreign_layouts import adapterhub, diffusers, kohya, mlx, torchtune
from adaptry.compute.foreign_layouts.peft_adapter import ForeignInput, PeftAdapter
from adaptry.compute.foreign_layouts.peft_view import view
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, Json, LazyAdapter, ParentAdapter
from adaptry.compute.lazy_adapters.lora import base_claim
from adaptry.compute.lazy_adapters.whole_weights import tokenizer_of
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass

DescribeFunction = Callable[[ForeignInput, BaseRecord | None, str | None], PeftAdapter]
"""A function that describes another tool's LoRA in PEFT's terms, from the adapter, its base if that is known,
and the chosen part of a pipeline if there is one.
"""

LAYOUTS: Mapping[str, DescribeFunction] = {
    "adapterhub": adapterhub.describe,
    "diffusers": diffusers.describe,
    "kohya": kohya.describe,
    "mlx": mlx.describe,
    "torchtune": torchtune.describe,
}

_LORA = frozenset(["lora"])
_METHODS: Mapping[str, frozenset[str]] = {"kohya": kohya.METHODS}
"""The methods of a tool that can be converted to PEFT's layout, if there are others than LoRA."""


@dataclass(frozen=True, slots=True)
class PeftView:
    """The adapter as PEFT would have written it, with notes for the user. `model` names the model that the
    adapter belongs to, if the base has several.
    """

    adapter: Adapter
    notes: tuple[str, ...] = ()
    model: BaseRecord | None = None


def open_as_peft(
    adapter: Adapter, label: str, base: BaseRecord | None = None, part: str | None = None
) -> PeftView:
    """A view of another tool's `adapter` in PEFT's layout. `part` is the part of a pipeline.

    Raises `Unsupported` (PEFT's layout cannot represent it) and `CheckFailed` (the base is needed for names,
    or does not have them).
    """
    refuse_other_layout(adapter, label)
    if part is not None and adapter.format.names_modules:
        raise CheckFailed(f"{label} is for one model, and has no parts: omit --part")
    lora = LAYOUTS[written_by(adapter).name](ForeignInput(adapter, label), base, part)
    return PeftView(view(adapter, lora, label), lora.notes, lora.model)


def parent_as_peft(parent: ParentAdapter) -> tuple[ParentAdapter, tuple[str, ...]]:
    """A view of `parent` in PEFT's layout, with its base as `open_as_peft` needs it, and notes for the user.
    Raises the errors of `open_as_peft`.
    """
    if parent.adapter.format is PEFT:
        return parent, ()
    seen = open_as_peft(parent.adapter, parent.label, parent.base)
    return replace(parent, adapter=seen.adapter, base=seen.model or parent.base), seen.notes


def convert_to_peft(
    parent: ParentAdapter, base: BaseRecord | None = None, part: str | None = None
) -> LazyAdapter:
    """Another tool's `parent` in PEFT's layout. If `base` is given, PEFT can load the whole result onto it,
    and it becomes the result's declared base unless the parent's base is known.

    Raises the errors of `open_as_peft`, and `CheckFailed` if it does not fit the base.
    """
    made = open_as_peft(parent.adapter, parent.label, base, part)
    notes = made.notes
    if base is None:
        notes = (*notes, "without a base (--base), the names of the modules were not checked")
    elif (report := check(made.adapter, made.model or base)).is_blocked:
        raise CheckFailed(f"{parent.label} in PEFT's layout: {report.sentence()}")
    recipe = {
        "operation": "layout",
        "from": written_by(parent.adapter).name,
        "inputs": [parent.recipe_entry()],
        **({"part": part} if part else {}),
    }
    return copied(replace(parent, base=parent.base or base), made.adapter, recipe, notes)


def copied(parent: ParentAdapter, seen: Adapter, recipe: Json, notes: tuple[str, ...] = ()) -> LazyAdapter:
    """A lazy adapter that copies `seen`, the view of `parent` in PEFT's layout."""
    return LazyAdapter(
        parents=(parent,),
        recipe=recipe,
        names=tuple(seen.tensors),
        compute=lambda: _modules(seen),
        config=lambda shapes: dict(seen.config.fields),
        base=base_claim([parent]),
        extra_files=tokenizer_of(parent.adapter),
        notes=notes,
    )


def _modules(adapter: Adapter) -> Iterator[ComputedModule]:
    from adaptry.compute.tensors.adapter_tensors import as_tensor

    for module in adapter.spec.modules:
        tensors = {
            name: as_tensor(adapter.tensor_bytes(name), adapter.tensors[name])
            for name in module.tensors.values()
        }
        yield ComputedModule(module.path, tensors)


def written_by(adapter: Adapter) -> AdapterFormat:
    """The tool whose names the tensors have, which a file's name does not always show."""
    return next((FORMATS[name] for name in adapter.spec.traits if name in FORMATS), adapter.format)


def refuse_other_layout(adapter: Adapter, label: str) -> None:
    """Raises `Unsupported`, `CheckFailed` if the file cannot be converted, whatever the base."""
    spec, format = adapter.spec, written_by(adapter)
    if format.name not in LAYOUTS or spec.method not in _METHODS.get(format.name, _LORA) or not spec.modules:
        raise Unsupported(
            f"{label} is {spec.method} in the layout of {format.tool}, and no method of PEFT computes"
            f" the same: {format.usage_hint}"
        )
    if spec.unclaimed or spec.shared:
        first = (*spec.unclaimed, *spec.shared.values())[0]
        raise CheckFailed(
            f"{label} has unknown tensors (first: {first}), which would be lost: {format.usage_hint}"
        )
