"""For machines that watch the server: is it alive, can it work, what has it done. No tenants' names."""

from __future__ import annotations

from typing import cast

from fastapi import Request
from starlette.responses import PlainTextResponse

from adaptry.core.errors import Unavailable
from adaptry_api.auth_policy import PUBLIC, app_state_of, guarded_router
from adaptry_api.metrics import RequestMetrics

ROUTES = guarded_router(tag="health")


@ROUTES.get("/healthz", dependencies=[PUBLIC], response_class=PlainTextResponse)
async def healthz() -> str:
    """The process answers."""
    return "ok\n"


@ROUTES.get("/readyz", dependencies=[PUBLIC], response_class=PlainTextResponse)
def readyz(request: Request) -> str:
    """The catalog answers too, there is room on its disk, and the server is not about to stop; 503 otherwise.

    A bucket is not asked: without one, what is in the catalog can still be read.
    """
    state = app_state_of(request)
    if not state.draining.is_ready:
        raise Unavailable("this server is about to stop")
    state.check()
    return "ready\n"


@ROUTES.get("/metrics", dependencies=[PUBLIC], response_class=PlainTextResponse)
def metrics(request: Request) -> str:
    """Prometheus' text format."""
    return cast(RequestMetrics, request.app.state.counts).render()
