"""The routes of the REST interface, one file per noun; `all_routes` lists them."""

from __future__ import annotations

from fastapi import APIRouter

from adaptry_api.hub.all_routes import hub_routes
from adaptry_api.oauth import device_route, token_route
from adaptry_api.pages.all_routes import page_routes
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
    inbox,
    inference,
    invitations,
    jobs,
    metrics,
    policies,
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
    webhooks,
    workers,
)


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
        inbox.OF_NAMESPACE,
        inbox.BY_ID,
        policies.ROUTES,
        policies.OF_ALIAS,
        policies.PROMOTIONS,
        policies.PROMOTION,
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
        inference.ROUTES,
        quotas.ROUTES,
        invitations.ROUTES,
        audit.ROUTES,
        webhooks.ROUTES,
    ]
    return [
        *routers,
        about.AT_THE_ROOT,
        health.ROUTES,
        token_route.ROUTES,
        device_route.ROUTES,
        *hub_routes(),
        *page_routes(),
    ]
