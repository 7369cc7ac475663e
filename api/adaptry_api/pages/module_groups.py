"""The modules of a spec, grouped for a table: modules with equal name, rank, scale and shape are one row."""

from __future__ import annotations

from collections import defaultdict

from adaptry.adapters.last_part import last_part
from adaptry.adapters.spec import ModuleSpec, Spec
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ModuleGroup:
    """The number of modules with this name, and the rank, scale and shape that they share."""

    name: str
    count: int
    rank: int
    scale: float
    fan_in: int
    fan_out: int
    paths: tuple[str, ...]


def module_groups(spec: Spec) -> tuple[ModuleGroup, ...]:
    """Groups by the last part of the path, rank, scale and shape, in the order of names."""
    groups: dict[tuple[str, int, float, int, int], list[ModuleSpec]] = defaultdict(list)
    for module in spec.modules:
        name = last_part(module.path)
        groups[name, module.rank, module.scale, module.fan_in, module.fan_out].append(module)
    return tuple(
        ModuleGroup(name, len(modules), rank, scale, fan_in, fan_out, tuple(one.path for one in modules))
        for (name, rank, scale, fan_in, fan_out), modules in sorted(groups.items())
    )
