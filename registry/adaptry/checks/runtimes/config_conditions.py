"""Conditions on a config beside its file: modules, ranks and parameters that differ there.

PEFT goes by the file where it can, and engines that go by the config refuse what it does not say.
"""

from __future__ import annotations

from adaptry.checks.formatting import fold_layer_numbers, shorten_names
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.core.errors import InvalidConfig


def undeclared_targets(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules that `target_modules` does not name, or no pattern in its place matches."""
    targets = subject.config.fields.get("target_modules")
    if not targets or targets == "all-linear":
        return None
    other = [
        module.path
        for module in subject.spec.modules
        if module.kind == "linear" and not _is_selected(subject, targets, module.path)
    ]
    return (
        ConditionMatch(
            f"target_modules does not name {shorten_names(fold_layer_numbers(other))}", tuple(other)
        )
        if other
        else None
    )


def excluded_targets(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules that `exclude_modules` names although the file has factors for them."""
    excluded = subject.config.fields.get("exclude_modules")
    out = [
        module.path
        for module in subject.spec.modules
        if excluded and _is_selected(subject, excluded, module.path)
    ]
    return (
        ConditionMatch(f"exclude_modules names {shorten_names(fold_layer_numbers(out))}", tuple(out))
        if out
        else None
    )


def listed_beyond(known: frozenset[str]) -> Condition:
    """Names in a list of `target_modules` that are neither among these nor names of the file's modules."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        listed = subject.config.fields.get("target_modules")
        if not isinstance(listed, list) or not subject.spec.modules:
            return None
        ends = {name.rpartition(".")[2] for name in listed if isinstance(name, str)}
        other = sorted(ends - known - frozenset(subject.spec.targets))
        return ConditionMatch(f"target_modules names {shorten_names(other)}") if other else None

    return found


def declares_nothing(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """`target_modules` is there and empty."""
    targets = subject.config.fields.get("target_modules")
    is_empty = targets in ([], "") and not subject.config.names("target_parameters")
    return ConditionMatch("target_modules is empty") if is_empty else None


def _is_selected(subject: CheckSubject, names: object, path: str) -> bool:
    """Whether a list has an end of the path, or a pattern matches it (a refused one matches)."""
    if isinstance(names, list):
        return f".{path}".endswith(tuple(f".{name}" for name in names if isinstance(name, str)))
    try:
        return not isinstance(names, str) or subject.config.patterns.matches(names, path)
    except InvalidConfig:
        return True


def declared_by_path(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Several names in `target_modules` that end alike, as whole paths do."""
    listed = subject.config.fields.get("target_modules")
    names = (
        [name.rpartition(".")[2] for name in listed if isinstance(name, str)]
        if isinstance(listed, list)
        else []
    )
    twice = sorted({name for name in names if names.count(name) > 1})
    return (
        ConditionMatch(f"target_modules names several paths that end in {shorten_names(twice)}")
        if twice
        else None
    )


def other_ranks(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules whose rank is not the config's `r`."""
    rank = subject.config.rank()
    other = [
        module.path for module in subject.spec.modules if module.kind != "parameter" and module.rank != rank
    ]
    return (
        ConditionMatch(
            f"r is {rank}, and {shorten_names(fold_layer_numbers(other))} has another rank", tuple(other)
        )
        if other
        else None
    )


def parameters_beyond(*ends: str) -> Condition:
    """`target_parameters` with a name that ends in none of these."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        other = [name for name in subject.config.names("target_parameters") if not name.endswith(ends)]
        return ConditionMatch(f"target_parameters names {shorten_names(other)}") if other else None

    return found
