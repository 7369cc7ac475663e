"""The fields of `adapter_config.json` that follow from the two checkpoints: task, base, names of modules."""

from __future__ import annotations

from collections.abc import Iterable

from adaptry.compute.extraction.plan import ExtractPlan
from adaptry.compute.extraction.target_choice import task_of
from adaptry.compute.lazy_adapters.lazy_adapter import Json
from adaptry.core.display import escape_controls


def config_of(plan: ExtractPlan, base_name: str | None) -> Json:
    """The fields that `build_lora` cannot derive without parents."""
    modules = [each.site for each in plan.lora if each.site and each.site.parameter is None]
    saved = sorted({each.weight.path for each in plan.whole if each.kind == "module"})
    has_bias = any(each.kind == "bias" for each in plan.whole)
    return {
        "task_type": task_of(plan.tuned.config),
        "base_model_name_or_path": None if base_name is None else escape_controls(base_name),
        "target_modules": _short({site.path for site in modules}, plan.modules),
        "fan_in_fan_out": any(
            each.is_transposed and each.site and each.site.kind == "linear" for each in plan.lora
        ),
        "modules_to_save": saved or None,
        "bias": "all" if has_bias else "none",
    }


def _short(paths: set[str], modules: Iterable[str]) -> list[str]:
    """Last names if all modules with that name are selected (engines expect last names), full paths
    otherwise.
    """
    others = {path.rpartition(".")[2] for path in modules if path not in paths}
    return sorted(
        {
            name if (name := path.rpartition(".")[2]) not in others and not name.isdecimal() else path
            for path in paths
        }
    )
