"""Activity: the audit log with filters for those who may read it; for others, the events they may see."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from adaptry.core.errors import Invalid, PermissionDenied
from adaptry.registry.audit_actions import ACTIONS
from adaptry.registry.audit_log import AuditEntry, AuditFilter
from adaptry.registry.records import Event, Page
from adaptry_api.auth_policy import VisitorsRegistry, app_state_of
from adaptry_api.pages.event_sentences import recent_events
from adaptry_api.pages.page_responses import render
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.text_csv import csv_file

ROUTES = page_router()
ACTIVITY = "/-/activity"
_ENTRIES = 50
_EVENTS = 100

_Text = Annotated[str, Query(max_length=300)]


class ActivityPage(BaseModel):
    """Entries of the audit log; None if the visitor may not read it, and then `events` that they may see."""

    entries: Page[AuditEntry] | None = None
    events: tuple[Event, ...] = ()


@ROUTES.get(ACTIVITY, response_model=None)
def show_activity(
    request: Request,
    registry: VisitorsRegistry,
    actor: _Text = "",
    action: _Text = "",
    resource: _Text = "",
    since: _Text = "",
    outcome: Literal["", "allowed", "denied"] = "",
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    format: Annotated[str | None, Query(max_length=8)] = None,
) -> Response:
    """Who did what, newest first."""
    where = AuditFilter(
        actor=_shortened(actor, 193),
        action=_shortened(action, 64),
        resource=_shortened(resource, 300),
        since=_day(since),
        denied=None if not outcome else outcome == "denied",
    )
    filters = {"actor": actor, "action": action, "resource": resource, "since": since, "outcome": outcome}
    try:
        app_state_of(request).store_denials()
        page = ActivityPage(entries=registry.audit.list(where, cursor, _ENTRIES))
    except PermissionDenied:
        page = ActivityPage(events=recent_events(registry.events, _EVENTS))
    if format == "csv":
        return _csv(page)
    names = {
        "filters": filters,
        "actions": sorted(ACTIONS),
        "here": lambda **changes: _address({**filters, **changes}),
    }
    return render(request, "activity.html", page, names)


def _csv(page: ActivityPage) -> Response:
    """The entries of the page shown, or the events of a visitor who may not read the audit log."""
    if page.entries is None:
        events = ((one.at, one.by, one.kind, one.name, one.number) for one in page.events)
        return csv_file("activity.csv", ("at", "by", "kind", "name", "version"), events)
    columns = ("at", "actor", "token", "action", "about", "outcome", "reason", "entry", "request")
    rows = (
        (one.at, one.actor, one.token, one.action, one.what, one.outcome, one.reason, one.seq, one.request)
        for one in page.entries.items
    )
    return csv_file("activity.csv", columns, rows)


def _shortened(text: str, maximum: int) -> str | None:
    return text.strip()[:maximum] or None


def _day(text: str) -> datetime | None:
    """The beginning of a day, as a date field sends it. Raises `Invalid`."""
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise Invalid("`since` must be a day, such as 2026-11-28") from None


def _address(values: dict[str, str]) -> str:
    """This page's address with other parameters."""
    return f"{ACTIVITY}?{urlencode({name: value for name, value in values.items() if value})}"
