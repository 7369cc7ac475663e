"""Conditions on differences between a config and its file: in modules, ranks and parameters.

PEFT uses the file where it can. Engines that use the config refuse anything that the config does not list.
"""

from __future__ import annotations

from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.core.errors import InvalidConfig


def undeclared_targets(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules that `target_modules` neither lists nor matches as a pattern."""
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
            f"target_modules does not list {shorten_names(fold_layer_numbers(other))}", tuple(other)
        )
        if other
        else None
    )


def excluded_targets(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules that `exclude_modules` lists although the file has factors for them."""
    excluded = subject.config.fields.get("exclude_modules")
    out = [
        module.path
        for module in subject.spec.modules
        if excluded and _is_selected(subject, excluded, module.path)
    ]
    return (
        ConditionMatch(f"exclude_modules lists {shorten_names(fold_layer_numbers(out))}", tuple(out))
        if out
        else None
    )


def listed_beyond(known: frozenset[str]) -> Condition:
    """Names in a list `target_modules` that are neither among these nor names of the file's modules."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        listed = subject.config.fields.get("target_modules")
        if not isinstance(listed, list) or not subject.spec.modules:
            return None
        ends = {name.rpartition(".")[2] for name in listed if isinstance(name, str)}
        other = sorted(ends - known - frozenset(subject.spec.targets))
        return ConditionMatch(f"target_modules lists {shorten_names(other)}") if other else None

    return found


def listed_without_factors(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Names in `target_modules` of matrices in the base's layers for which the file has no tensors."""
    listed = subject.config.fields.get("target_modules")
    if subject.base is None or not isinstance(listed, list):
        return None
    ends = {name.rpartition(".")[2] for name in listed if isinstance(name, str)}
    held = set(subject.spec.targets)
    empty = sorted((ends - held) & _names_in_layers(subject.base))
    return (
        ConditionMatch(f"target_modules lists {shorten_names(empty)}, but the file has none")
        if empty
        else None
    )


def listed_beyond_matrices(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Names in `target_modules` of modules of the base that are not a matrix of a layer."""
    listed = subject.config.fields.get("target_modules")
    if subject.base is None or not isinstance(listed, list):
        return None
    ends = {name.rpartition(".")[2] for name in listed if isinstance(name, str)}
    modules = {part for name in subject.base.tensors for part in name.split(".")[1:-1]}
    modules |= {name.rpartition(".")[0] for name in subject.base.tensors}
    other = sorted(ends & modules - _names_in_layers(subject.base))
    return ConditionMatch(f"target_modules lists {shorten_names(other)}") if other else None


def embeddings_unlisted(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Updates of an embedding or head whose name is not in the list `target_modules`."""
    listed = subject.config.fields.get("target_modules")
    if not isinstance(listed, list):
        return None
    ends = {name.rpartition(".")[2] for name in listed if isinstance(name, str)}
    left = sorted(frozenset(subject.spec.targets) & frozenset(["embed_tokens", "lm_head"]) - ends)
    return ConditionMatch(f"target_modules does not list {shorten_names(left)}") if left else None


def _names_in_layers(base: BaseRecord) -> frozenset[str]:
    """The last names of matrices in numbered layers."""
    return frozenset(
        name.split(".")[-2]
        for name, tensor in base.tensors.items()
        if len(tensor.shape) > 1 and any(part.isdigit() for part in name.split("."))
    )


def declares_nothing(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """`target_modules` is an empty list."""
    targets = subject.config.fields.get("target_modules")
    is_empty = targets in ([], "") and not subject.config.names("target_parameters")
    return ConditionMatch("target_modules is empty") if is_empty else None


def _is_selected(subject: CheckSubject, names: object, path: str) -> bool:
    """Whether a list has an ending of the path, or a pattern matches it (a refused pattern counts as a
    match).
    """
    if isinstance(names, list):
        return f".{path}".endswith(tuple(f".{name}" for name in names if isinstance(name, str)))
    try:
        return not isinstance(names, str) or subject.config.patterns.matches(names, path)
    except InvalidConfig:
        return True


def declared_by_path(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Several names in `target_modules` with the same ending, as complete paths have."""
    listed = subject.config.fields.get("target_modules")
    names = (
        [name.rpartition(".")[2] for name in listed if isinstance(name, str)]
        if isinstance(listed, list)
        else []
    )
    twice = sorted({name for name in names if names.count(name) > 1})
    return (
        ConditionMatch(f"target_modules lists several paths that end in {shorten_names(twice)}")
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
            f"r is {rank}, but {shorten_names(fold_layer_numbers(other))} has a different rank", tuple(other)
        )
        if other
        else None
    )


def parameters_beyond(*ends: str) -> Condition:
    """`target_parameters` with a name that does not end in one of these."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        other = [name for name in subject.config.names("target_parameters") if not name.endswith(ends)]
        return ConditionMatch(f"target_parameters lists {shorten_names(other)}") if other else None

    return found
