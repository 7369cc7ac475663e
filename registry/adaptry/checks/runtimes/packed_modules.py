"""Conditions of an engine that has several of the base's weights as one: queries, keys and values, gate and up projection.

An adapter of some of them is put together with zeros in the place of the others, as far as the engine thought of that; what it did
not think of is in `NEEDED`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.spec import ModuleSpec
from adaptry.checks.formatting import folded, shortened
from adaptry.checks.runtimes.conditions import last_name
from adaptry.checks.runtimes.rule import Found, Subject
from adaptry.checks.runtimes.runtime import Runtime

NEEDED: Mapping[str, tuple[str, ...]] = {
    "q_proj": ("v_proj",),
    "k_proj": ("q_proj", "v_proj"),
    "v_proj": ("q_proj",),
    "up_proj": ("gate_proj",),
}
"""By the last name of a module: which others the same layer has to have."""


def lacking_parts(
    modules: tuple[ModuleSpec, ...], base: BaseRecord | None
) -> Iterator[tuple[str, ModuleSpec]]:
    """Paths that `NEEDED` asks for and that are not there, each with a module that has the same inputs.

    A base without a gate has its up projection alone, and then nothing is lacking.
    """
    paths = {module.path for module in modules}
    seen = set[str]()
    for module in modules:
        parent, _, last = module.path.rpartition(".")
        for name in NEEDED.get(last, ()):
            path = f"{parent}.{name}"
            if path in paths | seen or (
                name == "gate_proj" and base and f"{path}.weight" not in base.tensors
            ):
                continue
            seen.add(path)
            yield path, module


def parts_missing(subject: Subject, runtime: Runtime) -> Found | None:
    """Modules of a layer without those that are one weight with them."""
    missing = dict(lacking_parts(subject.spec.modules, subject.base))
    if not missing:
        return None
    like = sorted({last_name(module.path) for module in missing.values()})
    return Found(
        f"it changes {shortened(like)} of a layer without {shortened(folded(list(missing)))}", tuple(missing)
    )
