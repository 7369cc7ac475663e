"""Renames an adapter's modules: in tensors, and in the config's fields that name modules.

Only names change. If a pattern of ranks or alphas would no longer match a module, the module's new name is
added, so that no scale changes.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods.extras import PREFIX
from adaptry.compute.exporting.rewrite import rewrite_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import Json, LazyAdapter, ParentAdapter
from adaptry.core.errors import CheckFailed

_PATTERNS = ("rank_pattern", "alpha_pattern")


def rename_modules(parent: ParentAdapter, paths: Mapping[str, str]) -> LazyAdapter:
    """`paths` maps old names to new ones, for modules and modules of whole weights; others are unchanged.
    Raises `CheckFailed` if two get the same name.
    """
    adapter = parent.adapter
    names = {name: _renamed(name, paths) for name in adapter.tensors}
    if len(set(names.values())) < len(names):
        raise CheckFailed(
            f"{parent.label}: two of its modules map to the same module of the base;"
            " is this the base it was trained on?"
        )
    fields = {**_targets(adapter, paths), **_patterns(adapter, paths)}
    return rewrite_adapter(parent, {"operation": "rename"}, fields, names.__getitem__)


def _renamed(name: str, paths: Mapping[str, str]) -> str:
    key = name.removeprefix(PREFIX)
    if key == name:
        return name
    for place, letter in enumerate(key):
        if letter == "." and (new := paths.get(key[:place])) is not None:
            return f"{PREFIX}{new}{key[place:]}"
    return name


def _targets(adapter: Adapter, paths: Mapping[str, str]) -> Json:
    """`target_modules` for the new names: short names stay valid, complete paths and patterns do not."""
    listed = adapter.config.fields.get("target_modules")
    if not isinstance(listed, list) or not listed:
        return {}
    ends = tuple(f".{name}" for name in listed if isinstance(name, str))
    new = [paths.get(module.path, module.path) for module in adapter.spec.modules if _is_plain(module.kind)]
    if all(f".{path}".endswith(ends) for path in new):
        return {}
    return {"target_modules": sorted(new), "exclude_modules": None, "layers_to_transform": None}


def _is_plain(kind: str) -> bool:
    return kind != "parameter"


def _patterns(adapter: Adapter, paths: Mapping[str, str]) -> Json:
    """Values by new names, for patterns that would give a renamed module another value."""
    config = adapter.config
    modules = {
        module.name: _new_name(module.path, module.name, paths)
        for module in adapter.spec.modules
        if module.kind != "attention"  # it has the name of another module
    }
    fields: dict[str, object] = {}
    for key in _PATTERNS:
        if not config.fields.get(key):
            continue
        config.patterns.prepare([*modules, *modules.values()])
        own = {old: config.value_for(key, old, None) for old in modules}
        if any(config.value_for(key, new, None) != own[old] for old, new in modules.items()):
            fields[key] = {modules[old]: value for old, value in own.items() if value is not None}
    return fields


def _new_name(path: str, name: str, paths: Mapping[str, str]) -> str:
    return paths.get(path, path) + name.removeprefix(path) if name.startswith(path) else name
