"""Repairs of the config only, so that it matches the file. No tensor changes."""

from __future__ import annotations

from adaptry.checks.binding import bind
from adaptry.checks.runtimes import ENGINES, Runtime
from adaptry.checks.runtimes.base_conditions import uneven_layers
from adaptry.checks.runtimes.rule import CheckSubject
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.rewrite import rewrite_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.core.errors import CheckFailed

_NARROWING = ("exclude_modules", "layers_to_transform", "layers_pattern")


def list_targets(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Lists exactly the file's modules in `target_modules`: by their last names if those match no other
    module, else by complete paths (unless the engine refuses several with the same ending).
    """
    adapter = parent.adapter
    modules = [module.path for module in adapter.spec.modules if module.kind != "parameter"]
    names = {path.rpartition(".")[2] for path in modules}
    takes_paths = all(rule.code != "targets_by_path" for rule in ENGINES[runtime.engine].rules)
    if takes_paths and _match_other_modules(names, CheckSubject(adapter, options.record), runtime):
        names = set(modules)
    narrowing = {key: None for key in _NARROWING if adapter.config.fields.get(key) is not None}
    return rewrite_adapter(parent, {"operation": "config"}, {"target_modules": sorted(names), **narrowing})


def _match_other_modules(names: set[str], subject: CheckSubject, runtime: Runtime) -> bool:
    """Whether other modules of the model also have these last names: PEFT would adapt and initialise them
    too.
    """
    if subject.base is None:
        return uneven_layers(subject, runtime) is not None
    placed = bind(subject.adapter, subject.base).intended.placed
    held = {part for target in placed for part in target.weight.parts}
    return any(
        name not in held and name.endswith(".weight") and name.split(".")[-2] in names and len(info.shape) > 1
        for name, info in subject.base.tensors.items()
    )


def clear_saved_modules(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Empties `modules_to_save`. Raises `CheckFailed` if the file has one of the modules."""
    if parent.adapter.spec.extras:
        first = parent.adapter.spec.extras[0].target
        raise CheckFailed(f"{parent.label} contains {first}, which modules_to_save lists: merge it instead")
    return rewrite_adapter(parent, {"operation": "config"}, {"modules_to_save": None})


def clear_bias(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Sets `bias` to `none`. Raises `CheckFailed` if the file has a bias."""
    held = [extra.target for extra in parent.adapter.spec.extras if extra.kind == "bias"]
    if held:
        raise CheckFailed(f"{parent.label} contains {held[0]}, which bias declares: merge it instead")
    return rewrite_adapter(parent, {"operation": "config"}, {"bias": "none"})


def clear_fan_in_fan_out(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Turns `fan_in_fan_out` off. A LoRA's factors are [r, in] and [out, r] in either orientation of the
    base's weight. The field makes PEFT transpose the product, which PEFT does for a Conv1D anyway (PEFT
    `tuners/lora/model.py`).
    """
    return rewrite_adapter(parent, {"operation": "config"}, {"fan_in_fan_out": False})
