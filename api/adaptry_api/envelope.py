"""What surrounds every request: an id, the versions, the safety headers, the counts, and no traceback.

It is plain ASGI, so that bodies stream through it untouched.
"""

from __future__ import annotations

import logging
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adaptry.core.errors import AdaptryError, Invalid
from adaptry.registry import protocol
from adaptry_api import errors
from adaptry_api.metrics import RequestMetrics

LOG = logging.getLogger("adaptry.api")

_HEADERS = {
    **protocol.versions(),
    protocol.OLDEST_HEADER: str(protocol.API_OLDEST),
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Vary": "Authorization",
}


class Envelope:
    """`hosts` are the host names answered to; empty: any."""

    def __init__(self, app: ASGIApp, counts: RequestMetrics, hosts: tuple[str, ...] = ()) -> None:
        self.app = app
        self.counts = counts
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        traffic = _Traffic(receive, send, request_id)
        began = time.perf_counter()
        try:
            self._admit(scope)
            await self.app(scope, traffic.receive, traffic.send)
        except AdaptryError as error:
            await errors.error_response(error, request_id)(scope, receive, traffic.send)
        except Exception:
            # The last resort: nobody else may see it, and the log must have it.
            LOG.exception("request %s failed", request_id)
            if traffic.status:
                raise  # the answer has begun: only closing the connection tells the client
            await errors.problem_response(request_id, 500, "internal", errors.INTERNAL)(
                scope, receive, traffic.send
            )
        finally:
            route = getattr(scope.get("route"), "path", "none")
            seconds = time.perf_counter() - began
            status = traffic.status or 499  # gone before an answer
            self.counts.record(scope["method"], route, status, seconds, traffic.received, traffic.sent)

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        protocol.check_client(headers)
        if self.hosts and _host(headers.get("host", "")) not in self.hosts:
            raise Invalid(
                "this server does not answer to that host name (adaptry serve --allow-host adds one)"
            )


class _Traffic:
    """One request's messages, with our headers added and the bytes counted."""

    def __init__(self, receive: Receive, send: Send, request_id: str) -> None:
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self.status = 0
        self.received = 0
        self.sent = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update({**_HEADERS, protocol.REQUEST_ID_HEADER: self._request_id})
            headers.setdefault("Cache-Control", "private, no-store")
        else:
            self.sent += len(message.get("body", b""))
        await self._send(message)


def _host(header: str) -> str:
    """The name in a Host header, without the port."""
    name, bracket, _ = header.lower().partition("]")
    return f"{name}]" if bracket else name.partition(":")[0]
