"""Extends uvicorn's HTTP protocol: a thread may read a large request body from the connection's socket.

The body must have a known length, the server must not terminate TLS on the connection, and the reader must
ask for the socket (`bodies.stream_body`). Until it does, and for all other bodies, uvicorn buffers at most
64 KiB, so that unauthenticated clients cannot exhaust the memory.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from adaptry_api.body_socket import BODY_SOCKET, DIRECT_BYTES, BodySocket

_MIN_BYTES = 1 << 20


class DirectBodies(HttpToolsProtocol):
    """uvicorn's protocol, which large bodies can bypass."""

    _received = 0  # bytes of the current body that the parser has seen
    _to_skip = 0  # unread bytes of the previous body

    def data_received(self, data: bytes) -> None:
        # Skipping does not extend the connection's keep-alive time, so a remainder that takes longer is cut
        # off.
        if self._to_skip:
            skipped = min(self._to_skip, len(data))
            self._to_skip -= skipped
            data = data[skipped:]
        if data:
            super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._received = 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        extensions: dict[Any, Any] = self.scope.setdefault("extensions", {})  # uvicorn's type lacks our keys
        extensions[BODY_SOCKET] = functools.partial(self._lend, self.cycle)

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        super().on_body(body)

    @contextmanager
    def _lend(self, cycle: RequestResponseCycle) -> Iterator[BodySocket | None]:
        """Lends the rest of the body for the duration of the block; yields None if uvicorn has to read it."""
        left = _content_length(cycle) - self._received
        is_plain = self.transport.get_extra_info("sslcontext") is None
        is_readable = cycle is self.cycle and not cycle.disconnected and not cycle.waiting_for_100_continue
        if left < _MIN_BYTES or not is_plain or not is_readable or self.transport.is_closing():
            yield None
            return
        self.flow.pause_reading()
        number = os.dup(self.transport.get_extra_info("socket").fileno())
        first, cycle.body = bytes(cycle.body), bytearray()
        body = BodySocket(socket.socket(fileno=number), first, left)
        try:
            yield body
        finally:
            body.cancel()
            if body.failure is not None:
                cycle.keep_alive = False  # the sender is too slow for another request
            extensions: dict[Any, Any] = cycle.scope["extensions"]
            extensions[DIRECT_BYTES] = len(first) + left - body.left
            self._resume_parsing(cycle, body.left)

    def _resume_parsing(self, cycle: RequestResponseCycle, unread: int) -> None:
        """Prepares the parser for the next request, which follows after `unread` more bytes of this body."""
        if self.parser is None:
            return  # the connection is lost
        self._to_skip = unread
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        if not unread:
            cycle.more_body = False
            cycle.message_event.set()


def _content_length(cycle: RequestResponseCycle) -> int:
    """The value of the request's `Content-Length`; 0 without one."""
    announced = next((value for name, value in cycle.scope["headers"] if name == b"content-length"), b"")
    return int(announced) if announced.isdigit() else 0
