"""Conditions on how a server was started: its ranks and modules, and switches that turn a rule."""

from __future__ import annotations

from adaptry.checks.formatting import shorten_names
from adaptry.checks.runtimes.conditions import last_name
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime


def largest_rank(subject: CheckSubject) -> int | None:
    """The rank that servers hold against their limit: the config's largest, though no module may have it."""
    config = subject.config
    if config.fields.get("r") is None or subject.spec.method != "lora":
        return subject.spec.rank
    patterns = config.pattern_values("rank_pattern").values()
    return max(config.rank(), *(rank for rank in patterns if type(rank) is int), 1)


def rank_above(option: str, default: int) -> Condition:
    """A rank that the server was not started for; with nothing said, one above the engine's default."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        rank, limit = largest_rank(subject), runtime.number(option)
        if rank is None or rank <= (limit or default):
            return None
        where = f"the server takes {limit} ({option})" if limit else f"the default of {option} is {default}"
        return ConditionMatch(f"its largest rank is {rank}, and {where}")

    return found


def rank_beyond(largest: int) -> Condition:
    """A rank above what the engine can ever take."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        rank = largest_rank(subject)
        return (
            ConditionMatch(f"its largest rank is {rank}, and {largest} is the most")
            if rank and rank > largest
            else None
        )

    return found


def targets_outside(option: str) -> Condition:
    """Modules that the server was not started for."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        served = runtime.names(option)
        if served is None:
            return None
        paths = [module.path for module in subject.spec.modules if last_name(module.path) not in served]
        if not paths:
            return None
        names = shorten_names(sorted({last_name(path) for path in paths}))
        return ConditionMatch(
            f"the server takes {', '.join(sorted(served))}, and it changes {names}", tuple(paths)
        )

    return found


def if_option_given(condition: Condition, option: str) -> Condition:
    """The condition, where the option was given."""
    return lambda subject, runtime: condition(subject, runtime) if option in runtime.options else None


def if_option_omitted(condition: Condition, option: str) -> Condition:
    """The condition, where the option was left open."""
    return lambda subject, runtime: None if option in runtime.options else condition(subject, runtime)
