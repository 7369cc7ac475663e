"""Middleware that makes a span of each request, if the process exports any. It is part of the trace of a
caller who sends a `traceparent`.

Like the log, it has the route's template and never the address.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adaptry.core import tracing
from adaptry_api.metrics import METHODS

_TRACE_HEADERS = ("traceparent", "tracestate")


class RequestSpans:
    """The outermost middleware of a request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        carried = {name: value for name in _TRACE_HEADERS if (value := headers.get(name))}
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        with tracing.span(
            method,
            {"http.request.method": method},
            kind="server",
            seconds=tracing.HTTP_SECONDS,
            parent=carried,
        ) as span:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set({"http.response.status_code": message["status"]})
                await send(message)

            try:
                await self.app(scope, receive, noting)
            finally:
                route = getattr(scope.get("route"), "path", None)
                if route is not None:
                    span.rename(f"{method} {route}")
                    span.set({"http.route": route})
                request = scope.get("state", {}).get("request_id")
                if request is not None:
                    span.detail({"adaptry.request": request})
