"""Health and metrics, for monitoring. Names of tenants are shown only to callers who may read everything."""

from __future__ import annotations

from typing import cast

from anyio import to_thread
from fastapi import Request
from starlette.responses import PlainTextResponse, Response

from adaptry.core.errors import Unavailable
from adaptry.core.identity import Identity
from adaptry_api.auth_policy import (
    PUBLIC,
    AnswerInMemory,
    app_state_of,
    guarded_router,
    identify,
    with_quick_answer,
)
from adaptry_api.metrics import RequestMetrics

ROUTES = guarded_router(tag="health")
_ALIVE = "ok\n"


async def _quick(request: Request, identity: Identity) -> Response:
    return PlainTextResponse(_ALIVE)


def _from_memory(request: Request, identity: Identity) -> AnswerInMemory:
    return AnswerInMemory(PlainTextResponse(_ALIVE), depends_on_catalog=False)


@ROUTES.get("/healthz", dependencies=[PUBLIC], response_class=PlainTextResponse)
@with_quick_answer(_quick, immediate=_from_memory)
async def get_liveness() -> str:
    """Check that the process answers."""
    return _ALIVE


@ROUTES.get("/readyz", dependencies=[PUBLIC], response_class=PlainTextResponse)
def get_readiness(request: Request) -> str:
    """Check that the server is ready for requests.

    It is ready if the catalog answers, its disk has room, and the server is not about to stop. Otherwise the
    status is 503, or 507 if the disk is full. The bucket is not checked: without it, the catalog can still be
    read.
    """
    state = app_state_of(request)
    if not state.draining.is_ready:
        raise Unavailable("this server is about to stop")
    state.check()
    return "ready\n"


@ROUTES.get("/metrics", dependencies=[PUBLIC], response_class=PlainTextResponse)
async def get_server_metrics(request: Request) -> str:
    """Get the server's metrics, in Prometheus' text format.

    A caller whose token may read everything (viewer on `*`) also gets the registry's: aliases, loaded
    adapters, open recalls, rollouts, and the storage of namespaces and principals.
    """
    of_server = cast(RequestMetrics, request.app.state.counts).render
    if "authorization" not in request.headers or not (await identify(request)).reads_everything:
        return of_server()
    of_registry = app_state_of(request).domain_metrics.render
    return await to_thread.run_sync(lambda: of_server() + of_registry())
