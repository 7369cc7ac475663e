"""The fleet: workers and what each has loaded, rollouts, and recalls with their proofs; kept up to date."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from adaptry.core.errors import NotFound
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.operations.recall_status import RecallProgress, recall_progress
from adaptry.registry.interface import Registry
from adaptry.registry.records import Page
from adaptry.registry.rollouts import RolloutInfo
from adaptry.registry.workers import WorkerInfo
from adaptry_api.auth_policy import VisitorsRegistry
from adaptry_api.pages.event_sentences import recent_events
from adaptry_api.pages.live import LivePart, stream_part
from adaptry_api.pages.page_responses import render
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.text_csv import csv_file
from adaptry_api.route_threads import searches

ROUTES = page_router()
FLEET = "/-/fleet"
_WORKERS = 100
_RECALLS = 10
_PROOFS = 12
"""Maximum number of workers whose proofs are shown for a recall."""
_NO_RESIDENT = (None,) * 5
_NAMES = 20
"""Maximum number of adapters whose rollouts are looked up."""


class FleetPage(BaseModel):
    """Workers in the order of their names, the newest recalls, and the rollouts that are running."""

    workers: Page[WorkerInfo]
    recalls: tuple[RecallProgress, ...] = ()
    rollouts: tuple[RolloutInfo, ...] = ()

    @property
    def open_recalls(self) -> tuple[RecallProgress, ...]:
        """The recalls that wait for a worker."""
        return tuple(one for one in self.recalls if not one.is_complete)


@ROUTES.get(FLEET, response_model=None)
@searches
def show_fleet(
    request: Request,
    registry: VisitorsRegistry,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    format: Annotated[str | None, Query(max_length=8)] = None,
) -> Response:
    """Workers, rollouts and recalls."""
    if format == "csv":
        return _csv(registry.workers.list(cursor, _WORKERS).items)
    return render(request, "fleet.html", _fleet(registry, cursor), {"is_first": cursor is None})


@ROUTES.get(f"{FLEET}/live", response_model=None)
async def stream_fleet(request: Request, registry: VisitorsRegistry) -> Response:
    """Streams the changing part of the page each time it has changed."""
    return stream_part(request, LivePart("fleet_part.html", lambda registry, _: _fleet(registry, None)))


def _fleet(registry: Registry, cursor: str | None) -> FleetPage:
    workers = registry.workers.list(cursor, _WORKERS)
    names = [resident.name for worker in workers.items for resident in worker.residents]
    names += [
        event.name
        for event in recent_events(registry.events, _NAMES)
        if event.name and event.kind.startswith("rollout.")
    ]
    rollouts = []
    for name in list(dict.fromkeys(names))[:_NAMES]:
        try:
            rollouts += [one for one in registry.rollouts.list(name) if one.stage == "running"]
        except NotFound:  # deleted or renamed since
            continue
    recalled = [
        version
        for state in WITHDRAWN
        for version in registry.versions.search(f"state:{state}", None, _RECALLS).items
    ]
    recalled.sort(
        key=lambda version: version.last_state_change.at if version.last_state_change else version.created_at
    )
    return FleetPage(
        workers=workers,
        recalls=tuple(recall_progress(registry, one, _PROOFS) for one in reversed(recalled[-_RECALLS:])),
        rollouts=tuple(rollouts),
    )


def _csv(workers: Iterable[WorkerInfo]) -> Response:
    """A row for each version on a worker, and one for a worker without any."""
    columns = (
        "worker", "owner", "engine", "engine_version", "base", "reported_at", "is_lost", "is_answering",
        "version", "state", "condition", "served_as", "since", "base_name",
    )  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for one in workers:
        facts = (
            one.worker, one.owner, one.engine, one.version, one.base, one.reported_at, one.is_lost,
            one.is_answering,
        )  # fmt: skip
        rows += [
            (
                *(*facts, f"{each.name}@{each.number}", each.state, each.condition, each.served_as),
                *(each.since, one.base_name),
            )
            for each in one.residents
        ] or [(*facts, *_NO_RESIDENT, one.base_name)]
    return csv_file("fleet.csv", columns, rows)
