"""An adapter whose modules get other names: tensors, and whatever in the config names modules.

Only names change. A pattern of ranks or alphas that would no longer match a module is written out by its
new name, so that no scale changes.
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
    """`paths`: new names by old ones, of modules and of whole weights' modules; what it lacks stays. Raises
    `CheckFailed` where two become one."""
    adapter = parent.adapter
    names = {name: _renamed(name, paths) for name in adapter.tensors}
    if len(set(names.values())) < len(names):
        raise CheckFailed(
            f"{parent.label}: two of its modules would be one of the base's;"
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
    """Short names still mean the modules; whole paths and patterns do not."""
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
    """Values by new names, of those patterns that give a module another value under its new one."""
    config = adapter.config
    modules = {module.name: _new_name(module.path, module.name, paths) for module in adapter.spec.modules}
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
