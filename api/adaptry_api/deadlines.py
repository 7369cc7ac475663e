"""Adds limits to uvicorn's HTTP protocol: ten seconds and 64 KiB for request heads, and a time limit for
reading answers.

Without them, clients that send or read a byte now and then would hold connections indefinitely, and enough
such connections cause an outage. Bodies of requests have their own deadline (`bodies`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from adaptry_api.immediate_protocol import ImmediateProtocol
from adaptry_api.response_writer import ResponseWriter
from adaptry_api.shutdown import DRAINING, DrainState

HEAD_BYTES = 64 << 10


class DeadlineProtocol(ImmediateProtocol):
    """Drops a connection whose request head is late or too large, or whose client reads no answer."""

    head_seconds = 10.0
    _deadline: asyncio.TimerHandle | None = None  # set while a head is awaited
    _stall: asyncio.TimerHandle | None = None  # set while the caller reads slower than we send
    _waiting_bytes = 0
    _head_bytes = 0

    # Overrides with uvicorn's own signature.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        if self._deadline is not None:
            self._waiting_bytes += len(data)
        super().data_received(data)
        if self._deadline is not None and self._waiting_bytes > HEAD_BYTES:
            self._drop()  # the parser buffers a header line without an end and calls nothing

    def on_unparsed_request(self) -> None:
        self._stop_waiting()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait_for_head()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.transport is self.transport:
            writer: Any = ResponseWriter(self.transport, self.loop)  # uvicorn expects a whole transport
            self.cycle.transport = writer

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_stalling()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Called when uvicorn stops: ends requests that only wait, since they would keep it running."""
        draining = self.app_state.get(DRAINING)
        if isinstance(draining, DrainState):
            draining.begin()
        super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_stalling()
        self._stall = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_stalling()
        super().resume_writing()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            self._drop()

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._waiting_bytes = self._head_bytes = 0
        self._deadline = self.loop.call_later(self.head_seconds, self._drop)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_stalling(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _drop(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
