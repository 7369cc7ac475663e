"""Conditions on a config beside its file: modules, ranks and parameters that it names otherwise than they are there.

PEFT goes by the file where it can, and engines that go by the config refuse what it does not say.
"""

from __future__ import annotations

from adaptry.checks.formatting import folded, shortened
from adaptry.checks.runtimes.rule import Condition, Found, Subject
from adaptry.checks.runtimes.runtime import Runtime


def undeclared(subject: Subject, runtime: Runtime) -> Found | None:
    """Modules that the list in `target_modules` does not name."""
    listed = subject.config.fields.get("target_modules")
    if not isinstance(listed, list) or not listed:
        return None
    ends = tuple(f".{name}" for name in listed if isinstance(name, str))
    other = [
        module.path
        for module in subject.spec.modules
        if module.kind == "linear" and not f".{module.path}".endswith(ends)
    ]
    return Found(f"target_modules does not name {shortened(folded(other))}", tuple(other)) if other else None


def declared_by_path(subject: Subject, runtime: Runtime) -> Found | None:
    """Several names in `target_modules` that end alike, as whole paths do."""
    listed = subject.config.fields.get("target_modules")
    names = (
        [name.rpartition(".")[2] for name in listed if isinstance(name, str)]
        if isinstance(listed, list)
        else []
    )
    twice = sorted({name for name in names if names.count(name) > 1})
    return Found(f"target_modules names several paths that end in {shortened(twice)}") if twice else None


def other_ranks(subject: Subject, runtime: Runtime) -> Found | None:
    """Modules whose rank is not the config's `r`."""
    rank = subject.config.rank()
    other = [
        module.path for module in subject.spec.modules if module.kind != "parameter" and module.rank != rank
    ]
    return (
        Found(f"r is {rank}, and {shortened(folded(other))} has another rank", tuple(other))
        if other
        else None
    )


def parameters_beyond(*ends: str) -> Condition:
    """`target_parameters` with a name that ends in none of these."""

    def found(subject: Subject, runtime: Runtime) -> Found | None:
        other = [name for name in subject.config.names("target_parameters") if not name.endswith(ends)]
        return Found(f"target_parameters names {shortened(other)}") if other else None

    return found
