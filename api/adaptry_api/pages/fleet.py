"""The fleet: workers and what each has loaded, rollouts, and recalls with their proofs; kept up to date.

The page's stream sends the same part again whenever it has changed. Workers' reports make no events, so the
part is computed again every few seconds, and at once after an event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from anyio import sleep, to_thread
from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from adaptry.core.errors import AdaptryError, NotFound
from adaptry.core.identity import Identity
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.operations.recall_status import RecallStatus, recall_status
from adaptry.registry.events import NameFilter
from adaptry.registry.interface import Registry
from adaptry.registry.records import Page
from adaptry.registry.rollouts import RolloutInfo
from adaptry.registry.workers import WorkerInfo
from adaptry_api.auth_policy import VisitorsRegistry, app_state_of, visitor_now
from adaptry_api.pages.event_sentences import recent_events
from adaptry_api.pages.rendering import render, render_text
from adaptry_api.pages.routing import page_router
from adaptry_api.routes.events import STREAM

ROUTES = page_router()
FLEET = "/-/fleet"
_WORKERS = 100
_RECALLS = 10
_NAMES = 20
"""Of how many adapters rollouts are looked up."""
_EVERY = 4.0
"""Seconds after which a stream looks again, if no event comes first."""
_PAUSE = 1.0
"""Fewest seconds between two looks of a stream."""


class FleetPage(BaseModel):
    """Workers in the order of their names, the newest recalls, and the rollouts that are running."""

    workers: Page[WorkerInfo]
    recalls: tuple[RecallStatus, ...] = ()
    rollouts: tuple[RolloutInfo, ...] = ()

    @property
    def open_recalls(self) -> tuple[RecallStatus, ...]:
        """Those that wait for a worker."""
        return tuple(one for one in self.recalls if not one.is_complete)


@ROUTES.get(FLEET, response_model=None)
def show_fleet(
    request: Request,
    registry: VisitorsRegistry,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
) -> Response:
    """Workers, rollouts and recalls."""
    return render(request, "fleet.html", _fleet(registry, cursor), {"is_first": cursor is None})


@ROUTES.get(f"{FLEET}/live", response_model=None)
async def stream_fleet(request: Request, registry: VisitorsRegistry) -> Response:
    """The page's changing part as server-sent events, each time that it has changed."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_changes(request), media_type=STREAM, headers=headers)


async def _changes(request: Request) -> AsyncIterator[str]:
    """Ends when the visitor leaves, the session ends, or the server stops; browsers connect again."""
    state = app_state_of(request)

    async def identify() -> Identity:
        return await visitor_now(request)

    shown, after = "", None
    yield "retry: 3000\n\n"
    while not state.draining.has_begun:
        try:
            registry = state.registry(await identify())
            fleet = await to_thread.run_sync(_fleet, registry, None)
            if (now := fleet.model_dump_json()) != shown:
                shown = now
                yield _message(render_text("fleet_part.html", {"page": fleet}))
            else:
                yield ": unchanged\n\n"
            await sleep(_PAUSE)
            news = await state.event_broadcaster.next_events(identify, after, 1, _EVERY, NameFilter(()))
        except AdaptryError:
            return
        after = news.seq


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
    recalled.sort(key=lambda version: version.standing.at if version.standing else version.created_at)
    return FleetPage(
        workers=workers,
        recalls=tuple(recall_status(registry, one.revision_ref) for one in reversed(recalled[-_RECALLS:])),
        rollouts=tuple(rollouts),
    )


def _message(text: str) -> str:
    """A server-sent event of lines."""
    return "".join(f"data: {line}\n" for line in text.splitlines() if line.strip()) + "\n"
