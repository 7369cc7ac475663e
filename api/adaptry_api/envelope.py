"""Middleware around every request: adds an id, version and security headers, counts it, and hides tracebacks.

It is plain ASGI, so that bodies stream through unchanged. Version headers are sent only to clients of our own
API, because no other client reads them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adaptry.core.errors import AdaptryError, Invalid, ProtocolMismatch
from adaptry.core.request_id import REQUEST_ID
from adaptry.registry import protocol
from adaptry_api import errors
from adaptry_api.body_socket import DIRECT_BYTES
from adaptry_api.denials import DenialRecorder, set_denial_reason
from adaptry_api.metrics import RequestMetrics
from adaptry_api.request_ids import RequestIds
from adaptry_api.request_log import RequestRecord, log_request

LOG = logging.getLogger("adaptry.api")

RawHeader = tuple[bytes, bytes]


def raw_headers(headers: Mapping[str, str]) -> list[RawHeader]:
    """Headers as the protocol sends them."""
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


_SECURITY = raw_headers(
    {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
        "Vary": "Authorization",
    }
)
_VERSIONS = raw_headers({**protocol.versions(), protocol.OLDEST_HEADER: str(protocol.API_OLDEST)})
PAGE_HEADERS = "page_headers"
"""Key in a request's state: headers that a page replaces (`pages.security`). No other response can."""
_REQUEST_ID = protocol.REQUEST_ID_HEADER.lower().encode()
_HUB_REQUEST_ID = b"x-request-id"
_OURS = frozenset([*(name for name, _ in (*_SECURITY, *_VERSIONS)), _REQUEST_ID])
_API_VERSION = protocol.API_HEADER.lower().encode()
_CACHE_CONTROL = b"cache-control"


class Envelope:
    """`hosts` are the host names that the server answers to; empty: any."""

    def __init__(
        self, app: ASGIApp, counts: RequestMetrics, denials: DenialRecorder, hosts: tuple[str, ...] = ()
    ) -> None:
        self.app = app
        self._ids = RequestIds()
        self.denials = denials
        self.counts = counts
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = self._ids.next()
        scope.setdefault("state", {})["request_id"] = request_id
        current = REQUEST_ID.set(request_id)
        traffic = _Traffic(receive, send, request_id, scope)
        began = time.perf_counter()
        try:
            self._admit(scope)
            await self.app(scope, traffic.receive, traffic.send)
        except AdaptryError as error:
            set_denial_reason(scope, error)
            await errors.error_response(error, request_id)(scope, receive, traffic.send)
        except Exception:
            # Unexpected errors: the log gets the traceback, the caller does not.
            LOG.exception("request %s failed", request_id)
            if traffic.status:
                raise  # the response has begun, so the client can be informed only by closing the connection
            detail = await to_thread.run_sync(_detail, scope)
            await errors.problem_response(request_id, 500, "internal", detail)(scope, receive, traffic.send)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            seconds = time.perf_counter() - began
            status = traffic.status or 499  # the client disconnected before the answer
            received = traffic.received + scope.get("extensions", {}).get(DIRECT_BYTES, 0)
            method, sent = scope["method"], traffic.sent
            self.counts.record(method, route, status, seconds, received, sent)
            caller = getattr(scope["state"].get("identity"), "name", None)
            log_request(RequestRecord(request_id, caller, method, route, status, seconds, received, sent))
            self.denials.note(scope, status)
            REQUEST_ID.reset(current)

    def _admit(self, scope: Scope) -> None:
        if _has_version(scope):
            protocol.check_client(Headers(scope=scope))
        if self.hosts and host_name(Headers(scope=scope).get("host", "")) not in self.hosts:
            raise Invalid(
                "this server does not answer to that host name (adaptry serve --allow-host adds one)"
            )


def _detail(scope: Scope) -> str:
    """The sentence about an unexpected error. One possible cause is a migration by a newer program, which has
    removed something that this server's statements name.
    """
    try:
        scope["app"].state.adaptry.catalog.schema()
    except ProtocolMismatch as error:
        LOG.error("a newer Adaptry upgraded the database while this server was running: restart this server")
        return f"{error.message}, and restart this server: the database was upgraded while it was running"
    except Exception:  # the database is unreachable, too; the log has the first error
        LOG.debug("the schema cannot be read", exc_info=True)
    return errors.INTERNAL


class _Traffic:
    """One request's messages, with our headers added and the bytes counted."""

    def __init__(self, receive: Receive, send: Send, request_id: str, scope: Scope) -> None:
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._scope = scope
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
            message["headers"] = with_our_headers(message["headers"], self._request_id, self._scope)
        else:
            self.sent += len(message.get("body", b"")) + message.get("count", 0)  # `count`: bytes of a file
        await self._send(message)


def with_our_headers(sent: Iterable[RawHeader], request_id: str, scope: Scope) -> list[RawHeader]:
    """The headers of a response, including those that every response to such a request has."""
    headers = [(name, value) for name, value in sent if name not in _OURS]
    names = {name for name, _ in headers}
    if _CACHE_CONTROL not in names:
        headers.append((_CACHE_CONTROL, b"private, no-store"))
    headers += scope["state"].get(PAGE_HEADERS, _SECURITY)
    if scope["path"].startswith(protocol.PREFIX) or _has_version(scope):
        headers += _VERSIONS
    if _HUB_REQUEST_ID not in names:
        headers.append((_REQUEST_ID, request_id.encode()))
    return headers


def _has_version(scope: Scope) -> bool:
    """Whether the client names the version of our API that it uses."""
    return any(name == _API_VERSION for name, _ in scope["headers"])


def host_name(header: str) -> str:
    """The name in a Host header, without the port."""
    name, bracket, _ = header.lower().partition("]")
    return f"{name}]" if bracket else name.partition(":")[0]
