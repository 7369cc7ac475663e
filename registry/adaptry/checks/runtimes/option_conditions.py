"""Conditions on a server's options: its limits on ranks and modules, and switches that change a rule."""

from __future__ import annotations

from adaptry.checks.finding_text import shorten_names
from adaptry.checks.runtimes.conditions import last_name
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime


def largest_rank(subject: CheckSubject) -> int | None:
    """The rank that servers compare with their limit: the config's largest, even if no module has it."""
    config = subject.config
    if config.fields.get("r") is None or subject.spec.method != "lora":
        return subject.spec.rank
    patterns = config.pattern_values("rank_pattern").values()
    return max(config.rank(), *(rank for rank in patterns if type(rank) is int), 1)


def rank_above(option: str, default: int) -> Condition:
    """A rank above the server's limit; if it is not given, above the engine's default."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        rank, limit = largest_rank(subject), runtime.number(option)
        if rank is None or rank <= (limit or default):
            return None
        where = (
            f"the server's limit is {limit} ({option})" if limit else f"the default of {option} is {default}"
        )
        return ConditionMatch(f"its largest rank is {rank}, but {where}")

    return found


def rank_beyond(largest: int) -> Condition:
    """A rank above the engine's maximum."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        rank = largest_rank(subject)
        return (
            ConditionMatch(f"its largest rank is {rank}, but {largest} is the maximum")
            if rank and rank > largest
            else None
        )

    return found


def targets_outside(option: str) -> Condition:
    """Modules that the server's options do not include."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        served = runtime.names(option)
        if served is None:
            return None
        paths = [module.path for module in subject.spec.modules if last_name(module.path) not in served]
        if not paths:
            return None
        names = shorten_names(sorted({last_name(path) for path in paths}))
        return ConditionMatch(
            f"the server supports {', '.join(sorted(served))}, but it changes {names}", tuple(paths)
        )

    return found


def if_option_given(condition: Condition, option: str) -> Condition:
    """The condition, if the option was given."""
    return lambda subject, runtime: condition(subject, runtime) if option in runtime.options else None


def if_option_omitted(condition: Condition, option: str) -> Condition:
    """The condition, if the option was not given."""
    return lambda subject, runtime: None if option in runtime.options else condition(subject, runtime)
