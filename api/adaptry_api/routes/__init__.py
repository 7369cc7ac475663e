"""The routes of the REST interface, one file per noun; `all_routes` lists them."""

from __future__ import annotations

from fastapi import APIRouter

from adaptry_api.hub.all_routes import hub_routes
from adaptry_api.oauth import token_route
from adaptry_api.routes import (
    about,
    adapters,
    aliases,
    audit,
    bases,
    commits,
    events,
    evidence,
    files,
    grants,
    health,
    invitations,
    jobs,
    metrics,
    principals,
    publishers,
    quotas,
    revisions,
    rollouts,
    runners,
    schedules,
    search,
    sso,
    tokens,
    uploads,
    verdicts,
    versions,
    workers,
)
from adaptry_api.sign_in import routes as sign_in_routes


def all_routes() -> list[APIRouter]:
    """The routes under the API's prefix, then those at the root of the host."""
    routers = [about.ROUTES, search.ROUTES, tokens.ROUTES, uploads.ROUTES, bases.ROUTES, events.ROUTES]
    routers += [
        adapters.ROUTES,
        versions.ROUTES,
        verdicts.ROUTES,
        revisions.ROUTES,
        files.ROUTES,
        commits.ROUTES,
        aliases.ROUTES,
        metrics.ROUTES,
        evidence.ROUTES,
        evidence.BY_ID,
        rollouts.ROUTES,
        workers.ROUTES,
        jobs.ROUTES,
        runners.ROUTES,
        schedules.ROUTES,
        principals.ROUTES,
        grants.ROUTES,
        publishers.ISSUERS,
        publishers.ROUTES,
        sso.ROUTES,
        quotas.ROUTES,
        invitations.ROUTES,
        audit.ROUTES,
    ]
    return [
        *routers,
        about.AT_THE_ROOT,
        health.ROUTES,
        token_route.ROUTES,
        sign_in_routes.ROUTES,
        *hub_routes(),
    ]
