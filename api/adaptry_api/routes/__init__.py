"""The routes of the REST interface, one file per noun; `all_routes` is the table of them."""

from __future__ import annotations

from fastapi import APIRouter

from adaptry_api.hub.all_routes import hub_routes
from adaptry_api.routes import (
    about,
    adapters,
    aliases,
    bases,
    commits,
    events,
    files,
    health,
    jobs,
    metrics,
    revisions,
    rollouts,
    runners,
    schedules,
    search,
    tokens,
    uploads,
    verdicts,
    versions,
    workers,
)


def all_routes(docs: bool) -> list[APIRouter]:
    """Everything under the API's prefix, then what stands at the root of the host."""
    routers = [about.router(docs), search.ROUTES, tokens.ROUTES, uploads.ROUTES, bases.ROUTES, events.ROUTES]
    routers += [
        adapters.ROUTES,
        versions.ROUTES,
        verdicts.ROUTES,
        revisions.ROUTES,
        files.ROUTES,
        commits.ROUTES,
        aliases.ROUTES,
        metrics.ROUTES,
        rollouts.ROUTES,
        workers.ROUTES,
        jobs.ROUTES,
        runners.ROUTES,
        schedules.ROUTES,
    ]
    return [*routers, health.ROUTES, *hub_routes()]
