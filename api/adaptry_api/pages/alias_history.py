"""The moves of an alias with author, time and reason, as a page, as JSON and as CSV; and rolling back.

An adapter's events are read page by page, so a page of moves may be empty although there are older ones.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from adaptry.core.errors import Conflict, NotFound
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName
from adaptry.operations.promotion import current_alias, find_rollback
from adaptry.registry.aliases import ALIAS_MOVED
from adaptry.registry.interface import Registry
from adaptry.registry.records import AliasInfo, Event, VersionInfo
from adaptry.registry.workers import ResidentSummary
from adaptry_api.auth_policy import Visitor, VisitorsRegistry
from adaptry_api.denials import set_denial_reason
from adaptry_api.errors import status_of
from adaptry_api.hub.addresses import Name
from adaptry_api.pages.adapter_addresses import ALIAS_ADDRESS, AliasName, alias_address, promotion_address
from adaptry_api.pages.page_responses import render
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.promotion_actions import Form
from adaptry_api.pages.promotion_page import (
    NO_WORKERS,
    PromotionRights,
    moves_since,
    rights_of,
    workers_with,
)
from adaptry_api.pages.text_csv import csv_file

ROUTES = page_router()
_EVENTS = 200
_PAGES = 5
"""Maximum number of pages of an adapter's events read for one page of moves."""
REMOVED = "alias.removed"


class AliasMove(BaseModel):
    """A move to version `number`, or a removal (None). `until` is the time of the next move.

    `verdict` is the reason why it was allowed (`met`, `overridden`, `rollback`); None if the alias had no
    policy.
    """

    number: int | None
    was_number: int | None
    at: datetime
    until: datetime | None = None
    by: str
    generation: int | None = None
    verdict: str | None = None
    reason: str | None = None


class AliasPage(BaseModel):
    """An alias and its moves, newest first. `current` is None if it was removed or never existed.

    `back` is the version that a rollback goes to; without one, `no_rollback` says why. After a rollback
    that was refused, `problem` says why, and `meanwhile` lists the moves since the visitor looked.
    """

    name: AdapterName
    alias: str
    current: AliasInfo | None = None
    moves: tuple[AliasMove, ...] = ()
    next: str | None = None
    back: VersionInfo | None = None
    no_rollback: str | None = None
    serving: ResidentSummary = NO_WORKERS
    switching: ResidentSummary = NO_WORKERS
    may: PromotionRights
    problem: str | None = None
    meanwhile: tuple[Event, ...] = ()


@ROUTES.get(ALIAS_ADDRESS, response_model=None)
def show_alias(
    request: Request,
    name: Name,
    alias: AliasName,
    registry: VisitorsRegistry,
    visitor: Visitor,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    format: Annotated[str | None, Query(max_length=8)] = None,
) -> Response:
    """The history of an alias."""
    page = _alias_page(registry, visitor, name, alias, cursor)
    if format == "csv":
        return _csv(page)
    return _render(request, "alias.html", page)


@ROUTES.get(f"{ALIAS_ADDRESS}/rollback", response_model=None)
def show_rollback(
    request: Request, name: Name, alias: AliasName, registry: VisitorsRegistry, visitor: Visitor
) -> Response:
    """The dialog that asks for confirmation of a rollback."""
    return _render(request, "rollback.html", _alias_page(registry, visitor, name, alias, None))


@ROUTES.post(f"{ALIAS_ADDRESS}/rollback", response_model=None)
def roll_back_on_page(
    request: Request,
    name: Name,
    alias: AliasName,
    registry: VisitorsRegistry,
    visitor: Visitor,
    form: Form,
) -> Response:
    """Moves the alias back, if neither its position nor the target has changed since the form was shown."""
    try:
        target = find_rollback(registry, name, alias, _EVENTS * _PAGES)
        if (target.version.number, target.alias.generation) != (form.number, form.generation):
            raise Conflict(f"{name}@{alias} has moved since you opened this page")
        registry.aliases.move(name, alias, target.version.digest, form.generation)
    except (Conflict, NotFound) as error:
        set_denial_reason(request.scope, error)
        page = _alias_page(registry, visitor, name, alias, None)
        meanwhile = moves_since(registry, name, alias, form.generation)
        update = {"problem": error.public_message, "meanwhile": meanwhile}
        return _render(request, "rollback.html", page.model_copy(update=update), status_of(error))
    return RedirectResponse(alias_address(name, alias), 303)


def _render(request: Request, template: str, page: AliasPage, status: int = 200) -> Response:
    address = alias_address(page.name, page.alias)
    names = {"address": address, "promotion_address": promotion_address, "nowhere": NO_WORKERS}
    return render(request, template, page, names, status)


def _alias_page(
    registry: Registry, visitor: Identity, name: AdapterName, alias: str, cursor: str | None
) -> AliasPage:
    current = current_alias(registry.aliases, name, alias)
    moves, following = _moves(registry, name, alias, cursor)
    back, no_rollback = _back(registry, name, alias)
    return AliasPage(
        name=name,
        alias=alias,
        current=current,
        moves=moves,
        next=following,
        back=back,
        no_rollback=no_rollback,
        serving=workers_with(registry, name, current.number) if current else NO_WORKERS,
        switching=workers_with(registry, name, current.number, alias) if current else NO_WORKERS,
        may=rights_of(visitor, name, alias),
    )


def _back(registry: Registry, name: AdapterName, alias: str) -> tuple[VersionInfo | None, str | None]:
    try:
        return find_rollback(registry, name, alias, _EVENTS * _PAGES).version, None
    except (Conflict, NotFound) as error:
        return None, error.public_message


def _moves(
    registry: Registry, name: AdapterName, alias: str, cursor: str | None
) -> tuple[tuple[AliasMove, ...], str | None]:
    """The moves among the next events, newest first, and the cursor of the rest."""
    found: list[AliasMove] = []
    for _ in range(_PAGES):
        page = registry.adapters.history(name, cursor, _EVENTS)
        for event in page.items:
            if event.kind in (ALIAS_MOVED, REMOVED) and event.detail.get("alias") == alias:
                found.append(_move(event, found[-1].at if found else None))
        cursor = page.next
        if cursor is None or len(found) >= _EVENTS:
            break
    return tuple(found), cursor


def _move(event: Event, until: datetime | None) -> AliasMove:
    detail, is_removal = event.detail, event.kind == REMOVED
    was = detail.get("was_number")
    return AliasMove(
        number=None if is_removal else event.number,
        was_number=event.number if is_removal else int(was) if was else None,
        at=event.at,
        until=until,
        by=event.by,
        generation=int(detail["generation"]) if "generation" in detail else None,
        verdict=detail.get("verdict"),
        reason=detail.get("reason"),
    )


def _csv(page: AliasPage) -> Response:
    columns = ("version", "was", "at", "until", "by", "verdict", "reason")
    rows = (
        (one.number, one.was_number, one.at, one.until, one.by, one.verdict, one.reason) for one in page.moves
    )
    return csv_file(f"{page.name.namespace}-{page.name.name}-{page.alias}.csv", columns, rows)
