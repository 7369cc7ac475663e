"""A worker's state as people read it, and how old its last report is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adaptry.registry.workers import ResidentInfo, WorkerInfo
from adaptry_cli.times import format_when

_SHOWN = 10


def format_silence(reported_at: datetime) -> str:
    """`no report for 3 min`."""
    return f"no report for {_format_span((datetime.now(UTC) - reported_at).total_seconds())}"


def state_word(one: WorkerInfo) -> str:
    """One word for a table: `unknown` for a worker whose last report no longer holds."""
    if one.gone:
        return "declared gone"
    if one.is_lost:
        return "unknown"
    return _reported_state(one)


def state_text(one: WorkerInfo) -> str:
    """`serving`, or what is known instead: `unknown: no report for 3 min; last: serving`."""
    if one.gone:
        return f"declared gone by {one.gone.by}, {format_when(one.gone.at)} ({one.gone.reason})"
    if one.is_lost:
        return f"unknown: {format_silence(one.reported_at)}; last: {_reported_state(one)}"
    return _reported_state(one)


def offline_text(one: WorkerInfo) -> str | None:
    """Until when a worker serves without the registry; None if it did not say."""
    if one.max_age is None:
        return None
    span = _format_span(one.max_age)
    if not one.is_lost:
        return f"while it cannot reach the registry, it serves the last known versions for {span}"
    until = one.reported_at + timedelta(seconds=one.max_age)
    return f"may serve the versions of its last report until {format_when(until)} ({span} after the report)"


def resident_text(one: ResidentInfo, is_current: bool = True) -> str:
    """`acme/tone@3, serving since 2026-11-26 04:00, last used …`; `last reported as serving` where the report
    is not current."""
    used = f", last used {format_when(one.last_used)}" if one.last_used else ""
    reason = f": {one.reason}" if one.reason else ""
    state = "" if one.state == "active" else f" ({one.state})"
    condition = one.condition if is_current else f"last reported as {one.condition}"
    return f"{one.name}@{one.number}{state}, {condition} since {format_when(one.since)}{used}{reason}"


def served_text(residents: tuple[ResidentInfo, ...]) -> str:
    """A line for each worker that has a version, for `adaptry show`."""
    lines = [
        f"{one.worker} as {one.served_as},"
        f" {'unknown now, last ' if one.is_lost else ''}{one.condition} since {format_when(one.since)}"
        for one in residents
        if one.may_be_served
    ]
    more = [f"and {len(lines) - _SHOWN} more: adaptry workers ls"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])


def _reported_state(one: WorkerInfo) -> str:
    return "serving" if one.is_answering else "engine away"


def _format_span(seconds: float) -> str:
    whole = max(0, int(seconds))
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if whole >= 2 * unit:
            return f"{whole // unit} {name}"
    return f"{whole} s"
