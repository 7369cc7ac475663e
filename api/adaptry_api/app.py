"""`create_app`: the application, made of its settings and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI

from adaptry import __version__
from adaptry_api import auth_policy, cleanup, errors
from adaptry_api.app_state import AppState
from adaptry_api.cors import Cors
from adaptry_api.draining import DRAINING
from adaptry_api.envelope import Envelope
from adaptry_api.hub.addresses import RawPathRouting
from adaptry_api.hub.computed_cache import HubCaches
from adaptry_api.hub.unsupported import unsupported_response
from adaptry_api.metrics import RequestMetrics
from adaptry_api.origins import check_origin
from adaptry_api.proxies import ForwardedHeaders, networks_of
from adaptry_api.routes import all_routes
from adaptry_api.settings import ServerSettings


def create_app(settings: ServerSettings) -> FastAPI:
    """Opens the registry and routes requests to it; the registry closes when the server stops.

    Raises `Unavailable` or `ProtocolMismatch` where the registry cannot be opened, `Invalid` for a malformed
    proxy address or origin, and `TypeError` for a route that does not say who may call it.
    """
    origins = tuple(map(check_origin, settings.origins))
    state, counts = AppState(settings), RequestMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, object]]:
        sweeps = (state.sweep_spools, cleanup.SPOOLS_EVERY), (state.sweep_uploads, cleanup.UPLOADS_EVERY)
        with state.draining.delay_sigterm(settings.notice):
            async with cleanup.periodic_cleanup(*sweeps):
                yield {DRAINING: state.draining}
                await state.event_broadcaster.close()
        state.close()

    app = FastAPI(
        title="Adaptry",
        version=__version__,
        lifespan=lifespan,
        # The description is a route of ours, with an access rule like every other.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # A slash too many is not a different address with a redirect to it, but none at all.
        redirect_slashes=False,
    )
    app.state.adaptry = state
    app.state.counts = counts
    app.state.hub_caches = HubCaches()
    for router in all_routes(settings.docs):
        # Not `include_router`, which wraps routes: here they stay what they are, each with its access rule.
        app.router.routes += router.routes
    errors.install_error_handlers(app, unsupported_response)
    app.add_middleware(RawPathRouting)
    app.add_middleware(Envelope, counts=counts, hosts=settings.hosts)
    if origins:
        app.add_middleware(Cors, origins=origins)
    app.add_middleware(ForwardedHeaders, networks=networks_of(settings.proxies))
    auth_policy.check_routes(app)
    return app
