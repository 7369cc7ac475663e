"""Conditions of an engine that packs base weights: queries, keys and values, gate and up projection.

An adapter of some of them is put together with zeros in the place of the others, as far as the engine thought
of that; what it did not think of is in `PACKED_WITH`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.spec import ModuleSpec
from adaptry.checks.formatting import fold_layer_numbers, shorten_names
from adaptry.checks.runtimes.conditions import last_name
from adaptry.checks.runtimes.rule import CheckSubject, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime

PACKED_WITH: Mapping[str, tuple[str, ...]] = {
    "q_proj": ("v_proj",),
    "k_proj": ("q_proj", "v_proj"),
    "v_proj": ("q_proj",),
    "up_proj": ("gate_proj",),
}
"""By the last name of a module: which others the same layer has to have."""


def missing_packed_modules(
    modules: tuple[ModuleSpec, ...], base: BaseRecord | None
) -> Iterator[tuple[str, ModuleSpec]]:
    """Paths that `PACKED_WITH` asks for and that are not there, each with a module that has the same inputs.

    A base without a gate has its up projection alone, and then nothing is lacking.
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
    """Modules of a layer without those that are one weight with them."""
    missing = dict(missing_packed_modules(subject.spec.modules, subject.base))
    if not missing:
        return None
    like = sorted({last_name(module.path) for module in missing.values()})
    return ConditionMatch(
        f"it changes {shorten_names(like)} of a layer without"
        f" {shorten_names(fold_layer_numbers(list(missing)))}",
        tuple(missing),
    )
