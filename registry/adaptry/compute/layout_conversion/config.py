"""The config of a converted adapter: the parent's, with the names, ranks and alphas of the new layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.compute.layout_conversion.converted_modules import ConvertedModule
from adaptry.compute.lazy_adapters.lazy_adapter import Json

_NARROWING = ("layers_to_transform", "layers_pattern", "exclude_modules")


def config_of(adapter: Adapter, converted: Sequence[ConvertedModule]) -> Json:
    fields = dict(adapter.config.fields)
    modules = [module for module in converted if module.parameter is None]
    parameters = sorted({module.name for module in converted if module.parameter is not None})
    if not _still_selects(adapter, modules):
        fields["target_modules"] = sorted(module.path for module in modules)
        fields.update((key, None) for key in _NARROWING if fields.get(key) is not None)
    if parameters or fields.get("target_parameters"):
        fields["target_parameters"] = parameters or None
    if parameters and fields.get("lora_dropout"):
        fields["lora_dropout"] = 0.0  # only affects training; PEFT refuses it for parameters
    return {**fields, **(_numbers(converted) if adapter.spec.method == "lora" else {})}


def _still_selects(adapter: Adapter, modules: Sequence[ConvertedModule]) -> bool:
    """Whether the parent's `target_modules` are short names that still select exactly the same modules."""
    targets = adapter.config.fields.get("target_modules")
    if not isinstance(targets, list) or any(module.parts[0].expert is not None for module in modules):
        return False
    if len(modules) != len(adapter.spec.modules):
        return False
    names = AdapterConfig({"target_modules": targets}).names("target_modules")
    return all(
        any(module.path == name or module.path.endswith(f".{name}") for name in names) for module in modules
    )


def _numbers(converted: Sequence[ConvertedModule]) -> Json:
    """Ranks and alphas that give every module its scale: the most frequent as default, others by name. Single
    experts come first, because PEFT 0.19 and later do not find their names in patterns.
    """
    numbers = {module.name: (module.rank, module.scale * module.rank) for module in converted}
    experts = [numbers[module.name] for module in converted if module.is_expert]
    (rank, alpha), _ = Counter(experts or numbers.values()).most_common(1)[0]
    return {
        "r": rank,
        "lora_alpha": _whole(alpha),
        "use_rslora": False,
        "rank_pattern": {name: own for name, (own, _) in numbers.items() if own != rank},
        "alpha_pattern": {name: _whole(own) for name, (_, own) in numbers.items() if own != alpha},
    }


def _whole(number: float) -> float:
    return int(number) if float(number).is_integer() else number
