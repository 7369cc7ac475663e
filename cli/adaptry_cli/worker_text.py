"""A worker's state as people read it, and how old its last report is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adaptry.registry.workers import MAX_PROBLEMS, ResidentInfo, WorkerInfo
from adaptry_cli.times import format_when

_SHOWN = 10


def format_silence(reported_at: datetime) -> str:
    """`no report for 3 min`."""
    return f"no report for {_format_span((datetime.now(UTC) - reported_at).total_seconds())}"


def state_word(worker: WorkerInfo) -> str:
    """One word for a table; `unknown` if the worker's last report has expired."""
    if worker.gone:
        return "declared gone"
    if worker.is_lost:
        return "unknown"
    return _reported_state(worker)


def state_text(worker: WorkerInfo) -> str:
    """`serving`, or another state, such as `unknown: no report for 3 min; last: serving`."""
    if worker.gone:
        return f"declared gone by {worker.gone.by}, {format_when(worker.gone.at)} ({worker.gone.reason})"
    if worker.is_lost:
        return f"unknown: {format_silence(worker.reported_at)}; last: {_reported_state(worker)}"
    return _reported_state(worker)


def problem_count(worker: WorkerInfo) -> str:
    """The number of problems: empty without any, and `256+` at the maximum of a report."""
    count = len(worker.problems)
    return f"{count or ''}{'+' if count == MAX_PROBLEMS else ''}"


def offline_text(worker: WorkerInfo) -> str | None:
    """The time until which a worker serves without the registry; None if it did not report one."""
    if worker.max_age is None:
        return None
    span = _format_span(worker.max_age)
    if not worker.is_lost:
        return f"while it cannot reach the registry, it serves the last known versions for {span}"
    until = worker.reported_at + timedelta(seconds=worker.max_age)
    return f"may serve the versions of its last report until {format_when(until)} ({span} after the report)"


def problem_explains(resident: ResidentInfo, problem: str | None) -> bool:
    """Whether the problem of a name is the reason why this version is not loaded. It has more detail than the
    version's own reason, such as the time of the next attempt.
    """
    if problem is None or resident.condition == "loading":
        return problem is not None
    return resident.condition == "failed" and problem.startswith(resident.reason or problem)


def resident_text(resident: ResidentInfo, is_current: bool = True, problem: str | None = None) -> str:
    """`acme/tone@3, serving since 2026-11-26 04:00, last used …`; `last reported as serving` if the report
    has expired. `problem`: why a version that is reported as loading or failed is not loaded."""
    used = f", last used {format_when(resident.last_used)}" if resident.last_used else ""
    reason = f": {problem or resident.reason}" if problem or resident.reason else ""
    state = "" if resident.state == "active" else f" ({resident.state})"
    reported = "not loaded" if problem and resident.condition == "loading" else resident.condition
    condition = reported if is_current else f"last reported as {reported}"
    since = format_when(resident.since)
    return f"{resident.name}@{resident.number}{state}, {condition} since {since}{used}{reason}"


def served_text(residents: tuple[ResidentInfo, ...]) -> str:
    """A line for each worker that has a version, for `adaptry show`."""
    lines = [
        f"{one.worker} as {one.served_as}, {_stale_reason(one)}{one.condition} since {format_when(one.since)}"
        for one in residents
        if one.may_be_served
    ]
    more = [f"and {len(lines) - _SHOWN} more: adaptry workers ls"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])


def _stale_reason(one: ResidentInfo) -> str:
    """Why the version may no longer be served as last reported."""
    if one.is_lost:
        return "unknown now, last "
    return "" if one.is_answering else "engine away, last "


def _reported_state(one: WorkerInfo) -> str:
    return "serving" if one.is_answering else "engine away"


def _format_span(seconds: float) -> str:
    whole = max(0, int(seconds))
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if whole >= 2 * unit:
            return f"{whole // unit} {name}"
    return f"{whole} s"
