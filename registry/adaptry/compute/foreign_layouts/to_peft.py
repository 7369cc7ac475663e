"""The verb: any described foreign LoRA in PEFT's layout, as a view or as a lazy adapter; or why it is not.

Only names, sides and scales change. What PEFT's arithmetic does not do as the tool's own is refused, with the
way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import FORMATS, AdapterFormat
from adaptry.checks import check
from adaptry.compute.foreign_layouts import adapterhub, diffusers, kohya, mlx
from adaptry.compute.foreign_layouts.peft_lora import ForeignInput, PeftLora
from adaptry.compute.foreign_layouts.peft_view import view
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, Json, LazyAdapter, ParentAdapter
from adaptry.compute.lazy_adapters.lora import base_claim
from adaptry.compute.lazy_adapters.whole_weights import tokenizer_of
from adaptry.core.errors import CheckFailed, Unsupported

DescribeFunction = Callable[[ForeignInput, BaseRecord | None, str | None], PeftLora]
"""A foreign LoRA in PEFT's words: of the adapter, its base where that is known, and the part of a pipeline
that is meant where that was said."""

LAYOUTS: Mapping[str, DescribeFunction] = {
    "adapterhub": adapterhub.describe,
    "diffusers": diffusers.describe,
    "kohya": kohya.describe,
    "mlx": mlx.describe,
}


@dataclass(frozen=True, slots=True)
class PeftView:
    """The adapter as PEFT would have written it, and what a reader should know of that. `model`: the one it
    is for, of a base that holds several.
    """

    adapter: Adapter
    notes: tuple[str, ...] = ()
    model: BaseRecord | None = None


def open_as_peft(
    adapter: Adapter, label: str, base: BaseRecord | None = None, part: str | None = None
) -> PeftView:
    """`adapter`, of another tool, seen in PEFT's layout. `part`: which part of a pipeline is meant.

    Raises `Unsupported` (nothing in PEFT's layout does the same) and `CheckFailed` (the base is needed to
    tell names, or does not have them).
    """
    refuse_other_layout(adapter, label)
    if part is not None and adapter.format.names_modules:
        raise CheckFailed(f"{label} is for one model, and has no parts: leave --part out")
    lora = LAYOUTS[written_by(adapter).name](ForeignInput(adapter, label), base, part)
    return PeftView(view(adapter, lora, label), lora.notes, lora.model)


def bring_to_peft(
    parent: ParentAdapter, base: BaseRecord | None = None, part: str | None = None
) -> LazyAdapter:
    """`parent`, of another tool, in PEFT's layout; one that PEFT loads whole, where the `base` is known.

    Raises as `open_as_peft`, and `CheckFailed` where it does not fit the base.
    """
    made = open_as_peft(parent.adapter, parent.label, base, part)
    notes = made.notes
    if base is None:
        notes = (*notes, "no base was looked at, so the modules' names were compared with none (--base)")
    elif (report := check(made.adapter, made.model or base)).is_blocked:
        raise CheckFailed(f"{parent.label} in PEFT's layout: {report.sentence()}")
    recipe = {
        "operation": "layout",
        "from": written_by(parent.adapter).name,
        "inputs": [parent.recipe_entry()],
        **({"part": part} if part else {}),
    }
    return copied(parent, made.adapter, recipe, notes)


def copied(parent: ParentAdapter, seen: Adapter, recipe: Json, notes: tuple[str, ...] = ()) -> LazyAdapter:
    """`seen`, the view of `parent` in PEFT's layout, as a lazy adapter: a copy of it."""
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
    """The tool in whose words the tensors are, which a file's name does not always tell."""
    return next((FORMATS[name] for name in adapter.spec.traits if name in FORMATS), adapter.format)


def refuse_other_layout(adapter: Adapter, label: str) -> None:
    """What the files alone say against it. Raises `Unsupported`, `CheckFailed`."""
    spec, format = adapter.spec, written_by(adapter)
    if format.name not in LAYOUTS or spec.method != "lora" or not spec.modules:
        raise Unsupported(
            f"{label} is {spec.method} in the layout of {format.tool}, and nothing in PEFT's layout is"
            f" computed in the same way: {format.usage_hint}"
        )
    if spec.unclaimed or spec.shared:
        first = (*spec.unclaimed, *spec.shared.values())[0]
        raise CheckFailed(
            f"{label} has tensors that no rule knows (first: {first}); nothing is left out silently:"
            f" {format.usage_hint}"
        )
