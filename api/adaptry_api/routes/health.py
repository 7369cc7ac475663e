"""For machines that watch the server: is it alive, can it work, what has it done. Names of tenants appear nowhere."""

from __future__ import annotations

from typing import cast

from fastapi import Request
from starlette.responses import PlainTextResponse

from adaptry.core.errors import Unavailable
from adaptry_api.auth_policy import ANYBODY, guarded, store_of
from adaptry_api.metrics import Counts

ROUTES = guarded(tag="health")


@ROUTES.get("/healthz", dependencies=[ANYBODY], response_class=PlainTextResponse)
async def healthz() -> str:
    """The process answers."""
    return "ok\n"


@ROUTES.get("/readyz", dependencies=[ANYBODY], response_class=PlainTextResponse)
def readyz(request: Request) -> str:
    """The catalog answers too, there is room on its disk, and the server is not about to stop; 503 otherwise.

    A bucket is not asked: without one, what is in the catalog can still be read.
    """
    store = store_of(request)
    if not store.draining.is_ready:
        raise Unavailable("this server is about to stop")
    store.check()
    return "ready\n"


@ROUTES.get("/metrics", dependencies=[ANYBODY], response_class=PlainTextResponse)
def metrics(request: Request) -> str:
    """Prometheus' text format."""
    return cast(Counts, request.app.state.counts).text()
