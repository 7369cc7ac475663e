"""Conditions for an engine that packs base weights: queries, keys and values; gate and up projection.

If an adapter changes only some of them, the engine fills the others with zeros, except in the cases of
`PACKED_WITH`, which it does not handle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.spec import ModuleSpec
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.checks.runtimes.conditions import last_name
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime

PACKED_WITH: Mapping[str, tuple[str, ...]] = {
    "q_proj": ("v_proj",),
    "k_proj": ("q_proj", "v_proj"),
    "v_proj": ("q_proj",),
    "up_proj": ("gate_proj",),
}
"""The last name of a module → the other modules that the same layer must have."""


def missing_packed_modules(
    modules: tuple[ModuleSpec, ...], base: BaseRecord | None
) -> Iterator[tuple[str, ModuleSpec]]:
    """Missing paths that `PACKED_WITH` requires, each with a module that has the same inputs.

    In a base without gates, an up projection alone is complete.
    """
    paths = {module.path for module in modules}
    seen = set[str]()
    for module in modules:
        parent, _, last = module.path.rpartition(".")
        for name in PACKED_WITH.get(last, ()):
            path = f"{parent}.{name}"
            if path in paths or path in seen:
                continue
            if name == "gate_proj" and base and f"{path}.weight" not in base.tensors:
                continue
            seen.add(path)
            yield path, module


def packed_module_missing(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules of a layer without the modules that are packed with them."""
    missing = dict(missing_packed_modules(subject.spec.modules, subject.base))
    if not missing:
        return None
    like = sorted({last_name(module.path) for module in missing.values()})
    return ConditionMatch(
        f"it changes {shorten_names(like)} of a layer without"
        f" {shorten_names(fold_layer_numbers(list(missing)))}",
        tuple(missing),
    )


def float8_beside_others(*groups: tuple[str, ...]) -> Condition:
    """Float8 factors that the engine would concatenate with other dtypes, which torch does not support."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        types: dict[tuple[str, tuple[str, ...], str], set[str]] = {}
        for module in subject.spec.modules:
            parent, _, last = module.path.rpartition(".")
            for group in groups:
                if last in group:
                    for role, name in module.tensors.items():
                        key = (parent, group, role)
                        types.setdefault(key, set()).add(subject.adapter.tensors[name].dtype)
        mixed = sorted(
            {
                parent
                for (parent, _, _), names in types.items()
                if len(names) > 1 and any(name.startswith("F8") for name in names)
            }
        )
        if not mixed:
            return None
        return ConditionMatch(
            f"{shorten_names(fold_layer_numbers(mixed))} has float8 factors, and others do not", tuple(mixed)
        )

    return found
