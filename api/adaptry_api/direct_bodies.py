"""uvicorn's HTTP protocol, which lends the socket of a request with a large body to the thread that reads it.

Only a body of known length is lent, over a connection without TLS of our own, and only to a reader that asks
for it (`bodies.stream_body`). Until then, and for all other bodies, uvicorn's limit of 64 KiB holds, so that
clients that are not authenticated cannot fill the memory.
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

_WORTHWHILE = 1 << 20


class DirectBodies(HttpToolsProtocol):
    """uvicorn's protocol, with a way around it for large bodies."""

    _received = 0  # bytes of the current body that the parser has seen
    _to_skip = 0  # bytes of the last body that nobody has read

    def data_received(self, data: bytes) -> None:
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
        extensions: dict[Any, Any] = self.scope.setdefault("extensions", {})  # typed without ours
        extensions[BODY_SOCKET] = functools.partial(self._lend, self.cycle)

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        super().on_body(body)

    @contextmanager
    def _lend(self, cycle: RequestResponseCycle) -> Iterator[BodySocket | None]:
        """The rest of the body during the block; None if uvicorn has to read it."""
        left = _content_length(cycle) - self._received
        is_plain = self.transport.get_extra_info("sslcontext") is None
        is_readable = cycle is self.cycle and not cycle.disconnected and not cycle.waiting_for_100_continue
        if left < _WORTHWHILE or not is_plain or not is_readable or self.transport.is_closing():
            yield None
            return
        self.flow.pause_reading()
        first, cycle.body = bytes(cycle.body), bytearray()
        number = os.dup(self.transport.get_extra_info("socket").fileno())
        body = BodySocket(socket.socket(fileno=number), first, left)
        try:
            yield body
        finally:
            body.cancel()
            extensions: dict[Any, Any] = cycle.scope["extensions"]
            extensions[DIRECT_BYTES] = len(first) + left - body.left
            self._go_on(cycle, body.left)

    def _go_on(self, cycle: RequestResponseCycle, unread: int) -> None:
        """Continues after the body, of which `unread` bytes are still to come."""
        if self.parser is None:
            return  # the connection is lost
        self._to_skip = unread
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        if not unread:
            cycle.more_body = False
            cycle.message_event.set()


def _content_length(cycle: RequestResponseCycle) -> int:
    """The length of the body that the request announces; 0 if it does not."""
    announced = next((value for name, value in cycle.scope["headers"] if name == b"content-length"), b"")
    return int(announced) if announced.isdigit() else 0
