"""Evaluates conditions from facts: met, not met, or unknown because evidence is missing, which is never true.

Every call of every condition is computed first. A call that lacks evidence makes its whole condition unknown,
whatever the rest of the expression says. CEL then computes the expression from the values of the calls. Needs
the extra `gates`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from adaptry.core.display import format_count
from adaptry.core.gates import statistics
from adaptry.core.gates.division import zero_divisor
from adaptry.core.gates.expression import Call, PolicyCondition
from adaptry.core.gates.facts import EvidenceFact, Fact, GateFacts, VersionFact, split_metric
from adaptry.core.gates.functions import Scalar
from adaptry.core.gates.syntax import nesting_problem
from adaptry.core.gates.tokens import tokens_of
from adaptry.core.lazy_dataclass import dataclass

_ERRORS = (TypeError, ZeroDivisionError, OverflowError, RuntimeError, KeyError, IndexError)
"""What CEL raises for an expression that it cannot compute."""
ConditionOutcome = Literal["met", "not_met", "unknown"]


class ConditionResult(Fact):
    """A condition as written, whether it is met, and a sentence with the reason and the numbers."""

    condition: str
    outcome: ConditionOutcome
    reason: str

    @property
    def is_met(self) -> bool:
        return self.outcome == "met"


def evaluate(conditions: Sequence[PolicyCondition], facts: GateFacts) -> tuple[ConditionResult, ...]:
    return tuple(_evaluate(condition, facts) for condition in conditions)


def _evaluate(condition: PolicyCondition, facts: GateFacts) -> ConditionResult:
    values: dict[str, Scalar] = {}
    reasons: list[str] = []
    missing: list[str] = []
    for place, call in enumerate(condition.calls):
        try:
            found = _FUNCTIONS[call.function](call, facts)
        except _UnknownFact as error:
            missing.append(str(error))
        else:
            values[f"call{place}"] = found.value
            reasons.append(found.reason)
    if missing:
        return _result(condition, "unknown", missing)
    computed = compute(condition, values)
    if isinstance(computed, str):
        return _result(condition, "unknown", [*reasons, computed])
    if (divisor := zero_divisor(condition, values, _value_of)) is not None:
        return _result(condition, "unknown", [*reasons, f"it divides by {divisor}, which is 0"])
    return _result(condition, "met" if computed else "not_met", reasons)


def _result(condition: PolicyCondition, outcome: ConditionOutcome, reasons: Sequence[str]) -> ConditionResult:
    return ConditionResult(
        condition=condition.source, outcome=outcome, reason="; ".join(dict.fromkeys(reasons))
    )


def compute(condition: PolicyCondition, values: Mapping[str, Scalar]) -> bool | str:
    """The value of the expression, or the reason why it has none."""
    try:
        found = _run(condition.expression, values)
    except ValueError as error:
        return (
            nesting_problem(tokens_of(condition.expression))
            or f"not an expression of CEL: {_first_line(error)}"
        )
    except _ERRORS as error:
        return f"cannot be computed: {_first_line(error)}"
    return found if isinstance(found, bool) else f"gives {found!r}, but a condition must give true or false"


def _run(expression: str, values: Mapping[str, Scalar]) -> object:
    import cel

    context = cel.Context()
    for name, value in values.items():
        context.add_variable(name, value)
    return cel.compile(expression).execute(context)


def _value_of(expression: str, values: Mapping[str, Scalar]) -> object:
    """The value of a part of a condition; None if it cannot be computed."""
    try:
        return _run(expression, values)
    except (ValueError, *_ERRORS):
        return None


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if line.startswith("ERROR")), lines[0])[:200]


class _UnknownFact(Exception):
    """A sentence about what is unknown."""


@dataclass(frozen=True, slots=True)
class _FactValue:
    value: Scalar
    reason: str


def _eval(call: Call, facts: GateFacts) -> _FactValue:
    found = _newest(call, facts.subject)
    name, value = _name(found), getattr(found, call.field or "value")
    if value is None:
        what = "the standard error" if call.field == "stderr" else "the number of documents"
        raise _UnknownFact(f"{what} of {name} is not known (evidence {found.id})")
    return _FactValue(value, f"{name} is {_measured(found)} (evidence {found.id})")


def _metric(call: Call, facts: GateFacts) -> _FactValue:
    metric = call.text("metric")
    found = _latest(one for one in facts.subject.evidence if one.task is None and one.metric == metric)
    if found is None:
        raise _UnknownFact(f"version {facts.subject.number} has no logged metric {metric}")
    return _FactValue(found.value, f"{metric} is {_number(found.value)} (evidence {found.id})")


def _has_metric(call: Call, facts: GateFacts) -> _FactValue:
    found = _latest(_matching(call, facts.subject))
    if found is None:
        return _FactValue(False, f"version {facts.subject.number} has no evidence of {_wanted(call)}")
    return _FactValue(True, f"{_name(found)} is {_measured(found)} (evidence {found.id})")


def _noninferior(call: Call, facts: GateFacts) -> _FactValue:
    vs, margin, confidence = call.text("vs"), call.number("margin"), call.number("confidence")
    other = _version_at(facts, vs)
    first = _newest(call, facts.subject)
    second = _newest(call, other)
    _require_own(first, facts.subject, second, other)
    if first.filter != second.filter:
        raise _UnknownFact(
            f"{_name(first)} was measured with the filter {first.filter or 'none'}, and with"
            f" {second.filter or 'none'} at {vs}"
        )
    if None not in (first.settings, second.settings) and first.settings != second.settings:
        raise _UnknownFact(
            f"{_name(first)} was measured with other settings than {vs}'s"
            f" ({first.settings}, not {second.settings})"
        )
    if "unknown" in (first.direction, second.direction) or first.direction != second.direction:
        raise _UnknownFact(f"whether a higher {_name(first)} is better is not known (evidence {first.id})")
    sign = 1.0 if first.direction == "higher" else -1.0
    found, note = _bound(call, facts, first, second, sign, confidence)
    is_met = found.bound > -margin
    reason = (
        f"{_name(first)}: {_number(first.value)} against {_number(second.value)} at {vs} (version"
        f" {other.number}); with {confidence:.4g} confidence at most {_number(max(0.0, -found.bound))} worse,"
        f" {_number(margin)} is accepted ({found.method}{note})"
    )
    return _FactValue(is_met, reason)


def _bound(
    call: Call,
    facts: GateFacts,
    first: EvidenceFact,
    second: EvidenceFact,
    sign: float,
    confidence: float,
) -> tuple[statistics.LowerBound, str]:
    """The bound of the difference, and why documents could not be paired."""
    pairs = next(
        (
            one
            for one in facts.paired
            if (one.first, one.second) == (first.samples, second.samples)
            and (one.metric, one.filter) == (first.metric, first.filter)
        ),
        None,
    )
    if pairs is not None and pairs.problem is None:
        if pairs.deviation == 0 and not (pairs.is_bounded and pairs.mean == 0):
            raise _UnknownFact(
                f"{_name(first)} differs by the same amount in all documents, which proves nothing"
            )
        if pairs.gained is not None and pairs.lost is not None:
            return statistics.paired_proportions(pairs.n, pairs.gained, pairs.lost, confidence), ""
        found = statistics.paired_means(
            pairs.n, pairs.mean, pairs.deviation, confidence, is_bounded=pairs.is_bounded
        )
        return found, ""
    if first.stderr is None or second.stderr is None:
        lacking = first if first.stderr is None else second
        raise _UnknownFact(
            f"neither samples of both versions nor the standard error of {_name(lacking)} are stored"
            f" (evidence {lacking.id})"
        )
    for one in (first, second):
        if one.n is not None and one.n < 2:
            raise _UnknownFact(f"{_name(one)} has fewer than two documents (evidence {one.id})")
    if first.stderr == 0 or second.stderr == 0:
        raise _UnknownFact(
            f"a standard error of 0 is not meaningful; add the samples of {_name(first)}"
            " (lm_eval --log_samples)"
        )
    found = statistics.independent_means(
        sign * (first.value - second.value), (first.stderr, second.stderr), (first.n, second.n), confidence
    )
    return found, f": {pairs.problem}" if pairs is not None else ""


def _comparable(call: Call, facts: GateFacts) -> _FactValue:
    task, vs = call.text("task"), call.text("vs")
    other = _version_at(facts, vs)
    mine, theirs = _of_task(facts.subject, task), _of_task(other, task)
    pairs = [
        (one, _latest(two for two in theirs if (two.metric, two.filter) == (one.metric, one.filter)))
        for one in mine
    ]
    both = [(one, two) for one, two in pairs if two is not None]
    if not both:
        raise _UnknownFact(f"version {facts.subject.number} and {vs} have no metric of {task} in common")
    differences: list[str] = []
    for one, two in both:
        _require_own(one, facts.subject, two, other)
        differences += _differences(one, two, vs, facts.knows_settings)
    if differences:
        return _FactValue(False, f"{task}: {', '.join(dict.fromkeys(differences))}")
    return _FactValue(True, f"{task} was measured like {vs}'s (n={both[0][0].n:,})")


def _differences(one: EvidenceFact, two: EvidenceFact, vs: str, knows_settings: bool) -> list[str]:
    """The differences between the ways in which the two were measured. Raises `_UnknownFact` if they are
    unknown.
    """
    settings = (one.settings, two.settings)
    if one.task_hash and two.task_hash:
        tasks = ("task hash", one.task_hash, two.task_hash)
    elif one.task_version and two.task_version:
        tasks = ("task version", one.task_version, two.task_version)
        if knows_settings and None in settings:  # a task hash is a hash of the prompts, a version is not
            raise _UnknownFact(
                f"how {one.task} was run, such as the number of examples in its prompts, is not known"
                f" (evidence {one.id}, {two.id}); add the results file again, or evaluate with"
                " lm_eval --log_samples"
            )
    else:
        raise _UnknownFact(f"the version of the task {one.task} is not known (evidence {one.id}, {two.id})")
    if one.n is None or two.n is None:
        raise _UnknownFact(
            f"the number of documents of {one.task} is not known (evidence {one.id}, {two.id})"
        )
    if one.n == two.n == 0:
        raise _UnknownFact(f"{one.task} was measured on no documents (evidence {one.id}, {two.id})")
    if one.chat_template is None and two.chat_template is None and {one.format, two.format} != {"lm-eval"}:
        raise _UnknownFact(f"the chat template is not known (evidence {one.id}, {two.id})")
    compared = (
        tasks,
        ("chat template", one.chat_template, two.chat_template),
        ("dataset", one.dataset, two.dataset),
        ("number of documents", one.n, two.n),
    )
    differences = [
        f"another {what} than {vs}'s ({_short(here)}, not {_short(there)})"
        for what, here, there in compared
        if here != there
    ]
    if None not in settings and one.settings != two.settings:
        differences.append(f"other settings than {vs}'s ({one.settings}, not {two.settings})")
    return differences


def _short(value: object) -> str:
    return "none" if value is None else str(value)[:16]


def _fits(call: Call, facts: GateFacts) -> _FactValue:
    runtime = call.text("runtime")
    found = next((one for one in facts.fits if one.runtime == runtime), None)
    if found is None:
        raise _UnknownFact(f"there is no verdict of {runtime}")
    if found.outcome == "as_trained":
        return _FactValue(True, f"{runtime} serves it as trained")
    return _FactValue(False, f"{runtime}: {found.reason or found.outcome}")


def _approvals(call: Call, facts: GateFacts) -> _FactValue:
    group = call.text("group")
    found = next((one for one in facts.approvals if one.group == group), None)
    if found is None or found.problem:
        raise _UnknownFact(found.problem if found and found.problem else f"there is no group {group}")
    names = f" ({', '.join(found.by)})" if found.by else ""
    ignored = f"; not counted: {', '.join(found.ignored)}" if found.ignored else ""
    return _FactValue(len(found.by), f"{format_count(len(found.by), 'approval')} of {group}{names}{ignored}")


def _state(call: Call, facts: GateFacts) -> _FactValue:
    del call
    return _FactValue(facts.subject.state, f"version {facts.subject.number} is {facts.subject.state}")


_FUNCTIONS: Mapping[str, Callable[[Call, GateFacts], _FactValue]] = {
    "eval": _eval,
    "metric": _metric,
    "has_metric": _has_metric,
    "noninferior": _noninferior,
    "comparable": _comparable,
    "fits": _fits,
    "approvals": _approvals,
    "state": _state,
}


def _version_at(facts: GateFacts, vs: str) -> VersionFact:
    found = facts.version_at(vs)
    if found is None:
        raise _UnknownFact(f"there is no {vs} to compare with yet")
    return found


def _require_own(first: EvidenceFact, subject: VersionFact, second: EvidenceFact, other: VersionFact) -> None:
    """Raises `_UnknownFact` if one results file is the evidence of two versions: it measured only one
    of them.
    """
    if first.file is not None and first.file == second.file and subject.digest != other.digest:
        raise _UnknownFact(
            f"evidence {first.id} and {second.id} come from one results file, which measured one version,"
            f" not both {subject.number} and {other.number}; withdraw the wrong one"
        )


def find_evidence(call: Call, version: VersionFact) -> EvidenceFact | None:
    """The evidence that a call selects; None if it selects none, or if several filters match."""
    try:
        return _newest(call, version)
    except _UnknownFact:
        return None


def _newest(call: Call, version: VersionFact) -> EvidenceFact:
    task = call.text("task")
    metric, _ = split_metric(call)
    found = _matching(call, version)
    filters = sorted({one.filter or "none" for one in found})
    if len(filters) > 1:
        raise _UnknownFact(
            f"{task} {metric} of version {version.number} has several filters ({', '.join(filters)}); name"
            f' one: filter="{filters[0]}"'
        )
    newest = _latest(found)
    if newest is None:
        known = sorted({one.metric for one in _of_task(version, task)})
        others = f" (of {task} there is {', '.join(known[:5])})" if known else ""
        raise _UnknownFact(f"version {version.number} has no evidence of {_wanted(call)}{others}")
    return newest


def _matching(call: Call, version: VersionFact) -> list[EvidenceFact]:
    """The evidence of the metric, with the filter if the call names one."""
    metric, filter = split_metric(call)
    found = [one for one in _of_task(version, call.text("task")) if one.metric == metric]
    return found if filter is None else [one for one in found if one.filter == filter]


def _wanted(call: Call) -> str:
    metric, filter = split_metric(call)
    return f"{call.text('task')} {metric}" + (f" with the filter {filter}" if filter else "")


def _of_task(version: VersionFact, task: str) -> list[EvidenceFact]:
    return [one for one in version.evidence if one.task == task]


def _latest(found: Iterable[EvidenceFact]) -> EvidenceFact | None:
    return max(found, key=lambda one: one.id, default=None)


def _name(one: EvidenceFact) -> str:
    return f"{one.task} {one.metric}"


def _measured(one: EvidenceFact) -> str:
    error = "" if one.stderr is None else f" ± {_number(one.stderr)}"
    return _number(one.value) + error + ("" if one.n is None else f", n={one.n:,}")


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)
