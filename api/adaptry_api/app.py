"""`create_app`: builds the application from its settings alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI

from adaptry import __version__
from adaptry.core import tracing
from adaptry_api import auth_policy, cleanup, errors
from adaptry_api.app_state import AppState
from adaptry_api.cors import Cors
from adaptry_api.envelope import Envelope
from adaptry_api.hub.addresses import RawPathRouting
from adaptry_api.hub.computed_cache import HubCaches
from adaptry_api.hub.snapshot_cache import SnapshotCache
from adaptry_api.immediate_answers import IMMEDIATE, ImmediateAnswers
from adaptry_api.metrics import RequestMetrics
from adaptry_api.origins import check_origin
from adaptry_api.pages.missing_page import unserved_response
from adaptry_api.process_memory import FreedMemory
from adaptry_api.proxies import ForwardedHeaders, networks_of
from adaptry_api.quick_routes import QuickRoutes
from adaptry_api.request_count_exchange import share_requests
from adaptry_api.request_spans import RequestSpans
from adaptry_api.routes import all_routes
from adaptry_api.settings import ServerSettings
from adaptry_api.shutdown import DRAINING


def create_app(settings: ServerSettings) -> FastAPI:
    """Opens the registry and routes requests to it; the registry closes when the server stops.

    Raises `Unavailable` or `ProtocolMismatch` if the registry cannot be opened, `Invalid` for a malformed
    proxy address or origin, and `TypeError` for a route without an access rule.
    """
    origins = tuple(map(check_origin, settings.origins))
    state, counts = AppState(settings), RequestMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, object]]:
        tasks = (
            (state.sweep_spools, cleanup.SPOOLS_EVERY),
            (state.sweep_uploads, cleanup.UPLOADS_EVERY),
            (state.store_token_uses, cleanup.TOKEN_USES_EVERY),
            (state.read_request_limits, cleanup.LIMITS_EVERY),
            (state.confirm_users, cleanup.CONFIRM_EVERY),
            (state.store_downloads, cleanup.DOWNLOADS_EVERY),
            (state.store_denials, cleanup.AUDIT_EVERY),
            (state.seal_audit_log, cleanup.AUDIT_EVERY),
            (state.complete_index_updates, cleanup.INDEX_EVERY),
            (FreedMemory(state.catalog.shrink).return_to_system, cleanup.MEMORY_EVERY),
        )
        with state.draining.delay_sigterm(settings.notice), state.sending_webhooks():
            async with cleanup.periodic_work(*tasks), anyio.create_task_group() as group:
                charge = state.catalog.charge_requests
                group.start_soon(share_requests, state.request_limits, charge, counts.record_share)
                yield {DRAINING: state.draining, IMMEDIATE: app.state.immediate_answers}
                state.draining.begin()  # stops periodic work, even without connections
                await state.event_broadcaster.close()
                group.cancel_scope.cancel()
        state.close()

    app = FastAPI(
        title="Adaptry",
        version=__version__,
        lifespan=lifespan,
        # The description has a separate route here, with an access rule like all others.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # A trailing slash makes an address unknown; it is not redirected.
        redirect_slashes=False,
        # `RequestSpans` and `RequestMetrics` observe requests. (Older versions of FastAPI ignore this.)
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.adaptry = state
    app.state.counts = counts
    app.state.hub_caches = HubCaches()
    app.state.hub_snapshots = SnapshotCache.of(state)
    for router in all_routes():
        # Not `include_router`: it wraps routes, and would hide each route's access rule.
        app.router.routes += router.routes
    errors.install_error_handlers(app, unserved_response)
    _add_middleware(app, state, settings, origins)
    auth_policy.check_routes(app)
    return app


def _add_middleware(
    app: FastAPI, state: AppState, settings: ServerSettings, origins: tuple[str, ...]
) -> None:
    """Adds the middleware. The one that is added last sees a request first."""
    counts: RequestMetrics = app.state.counts
    is_usual = not (settings.hosts or origins or tracing.is_enabled())  # no other middleware has to act
    app.state.immediate_answers = None
    if state.quick_reads.is_available:
        app.add_middleware(QuickRoutes, routes=app.routes)
        if is_usual:
            app.state.immediate_answers = ImmediateAnswers(app, state, counts)
    app.add_middleware(RawPathRouting)
    app.add_middleware(Envelope, counts=counts, denials=state.denials, hosts=settings.hosts)
    if tracing.is_enabled():
        app.add_middleware(RequestSpans)
    if origins:
        app.add_middleware(Cors, origins=origins)
    app.add_middleware(ForwardedHeaders, networks=networks_of(settings.proxies))
