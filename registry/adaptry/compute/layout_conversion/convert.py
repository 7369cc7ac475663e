"""Converts an adapter to another layout, lazily, from the base's shapes, without reading the base's
weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.formats import PEFT
from adaptry.adapters.key_layout import EXPERTS_FUSED
from adaptry.adapters.methods.target_parameters import require_not_transposed
from adaptry.bases.module_map import ModuleMap
from adaptry.checks import check
from adaptry.checks.binding import BoundAdapter, as_peft_reads, bind
from adaptry.checks.finding_text import verb_form
from adaptry.compute.layout_conversion.config import config_of
from adaptry.compute.layout_conversion.converted_modules import ConvertedModule, convert_modules
from adaptry.compute.layout_conversion.module_names import LayoutVersion, LoadedNames
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, LazyAdapter, ParentAdapter
from adaptry.compute.lazy_adapters.lora import base_claim
from adaptry.compute.lazy_adapters.whole_weights import tokenizer_of
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

TITLES: Mapping[LayoutVersion, str] = {
    "transformers4": "transformers 4 (before PEFT 0.19)",
    "transformers5": "transformers 5 (PEFT 0.19 and later)",
}


def convert_layout(parent: ParentAdapter, base: BaseRecord, to: LayoutVersion) -> LazyAdapter:
    """`parent` in the layout `to`.

    Raises `Unsupported` (another tool's layout, or a variant that the layout cannot represent) and
    `CheckFailed` (modules that are not in the base; or the file already has this layout).
    """
    label = parent.label
    if parent.adapter.format is not PEFT:
        raise Unsupported(
            f"{label} is in the layout of {parent.adapter.format.tool}: convert it to PEFT's first, without"
            " --layout"
        )
    adapter = as_peft_reads(parent.adapter, base)
    bound = bind(_without_dropout(adapter), base)
    _check(label, bound)
    module_map = bound.intended
    _check_placed(label, module_map)
    if EXPERTS_FUSED in adapter.spec.layouts:
        require_not_transposed(adapter.spec)
    weights = LoadedNames.from_tensors(base.tensors, str(base.facts.get("model_type") or ""))
    converted = convert_modules(label, adapter, module_map, weights, to)
    renamed = _renamed_extras(module_map, weights, to)
    if all(module.is_unchanged for module in converted) and all(old == new for old, new in renamed.items()):
        raise CheckFailed(f"{label} is in the layout of {TITLES[to]} already, so nothing would change")
    maker = _ConvertedTensors(adapter, converted, renamed)
    return LazyAdapter(
        parents=(parent,),
        recipe={"operation": "migrate", "layout": to, "inputs": [parent.recipe_entry()]},
        names=maker.names,
        compute=maker.modules,
        config=lambda shapes: config_of(adapter, converted),
        base=base_claim([parent]),
        extra_files=tokenizer_of(adapter),
    )


def _without_dropout(adapter: Adapter) -> Adapter:
    """The adapter without its dropout, with which PEFT would refuse fused experts. The conversion
    resets it.
    """
    if not adapter.config.fields.get("lora_dropout"):
        return adapter
    return replace(adapter, config=AdapterConfig({**adapter.config.fields, "lora_dropout": 0.0}))


def _check(label: str, bound: BoundAdapter) -> None:
    """Raises `CheckFailed` for blocking findings, except names of another layout, which the conversion
    corrects.
    """
    report = check(bound.adapter, bound.base, bound.adapter.config.base_name, bound=bound)
    left = tuple(found for found in report.findings if found.code != "names_not_loaded")
    report = report.model_copy(update={"findings": left})
    if report.is_blocked:
        raise CheckFailed(f"{label}: {report.sentence()}")


def _check_placed(label: str, module_map: ModuleMap) -> None:
    lost = [
        *(module.path for module in module_map.missing),
        *(extra.target for extra in module_map.missing_extras),
        *(module.path for module in module_map.blocks),
    ]
    if lost:
        raise CheckFailed(
            f"{label}: {len(lost)} of its modules {verb_form(len(lost), 'is', 'are')} not in this"
            f" base (first: {lost[0]}), so the names in another layout are unknown"
        )


def _renamed_extras(module_map: ModuleMap, weights: LoadedNames, to: LayoutVersion) -> dict[str, str]:
    """The names of whole weights, in which only the module's path changes."""
    renamed = {}
    for each in module_map.extras:
        target = each.extra.target
        old, new = (name.rpartition(".")[0] for name in (target, weights.rename(target, each.tensor, to)))
        renamed[each.extra.tensor] = each.extra.tensor.replace(old, new, 1)
    return renamed


@dataclass(frozen=True, slots=True)
class _ConvertedTensors:
    adapter: Adapter
    converted: tuple[ConvertedModule, ...]
    extras: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        modules = [name for module in self.converted for name in module.names]
        return (*modules, *self.extras.values(), *self.adapter.spec.shared.values())

    def modules(self) -> Iterator[ComputedModule]:
        for module in self.converted:
            yield ComputedModule(module.name, module.tensors(self._read))
        shared = self.adapter.spec.shared.values()
        for old, new in (*self.extras.items(), *((name, name) for name in shared)):
            yield ComputedModule(new, {new: self._read(old)})

    def _read(self, name: str) -> Tensor:
        from adaptry.compute.tensors.adapter_tensors import as_tensor

        return as_tensor(self.adapter.tensor_bytes(name), self.adapter.tensors[name])
