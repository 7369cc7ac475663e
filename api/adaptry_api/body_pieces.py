"""Receives large request bodies in larger pieces than uvicorn does.

uvicorn copies a body three times and wakes its reader for every read from the socket. A reader that streams
a body (`bodies.stream_body`) requests pieces of half a megabyte instead, which are copied twice. Until then,
and for bodies that are not streamed, uvicorn's limit of 64 KiB holds, so that clients that are not
authenticated cannot fill the memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from adaptry_api.bodies import LARGE_PIECES

_PIECE = 512 << 10
_MOST = 1 << 20  # bytes that wait for the reader before the socket is no longer read
_SOON_SECONDS = 0.005  # after which the reader gets what has arrived


class _Pieces:
    """The part of a body that waits for its reader; uvicorn treats it as its own buffer."""

    def __init__(self, first: bytes) -> None:
        self._pieces = [first] if first else []
        self._size = len(first)

    def __iadd__(self, piece: bytes) -> _Pieces:
        self._pieces.append(piece)
        self._size += len(piece)
        return self

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self._pieces)


class LargePieces(HttpToolsProtocol):
    """uvicorn's protocol, with large pieces for the requests that ask for them."""

    _asking: RequestResponseCycle | None = None
    _soon: asyncio.TimerHandle | None = None

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        cycle, scope = self.cycle, self.scope

        def ask() -> None:
            self._asking = cycle

        extensions: dict[Any, Any] = scope.setdefault("extensions", {})  # typed without extensions of ours
        extensions[LARGE_PIECES] = ask

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle is not self._asking or cycle.response_complete:
            super().on_body(body)
            return
        waiting: Any = cycle.body  # a `bytearray`, which is replaced
        if not isinstance(waiting, _Pieces):
            waiting = _Pieces(bytes(waiting))
        waiting += body
        cycle.body = waiting
        if len(waiting) > _MOST:
            self.flow.pause_reading()
        if len(waiting) >= _PIECE:
            cycle.message_event.set()
        elif self._soon is None:
            self._soon = self.loop.call_later(_SOON_SECONDS, self._wake, cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._soon is not None:
            self._soon.cancel()
        super().connection_lost(exc)

    def _wake(self, cycle: RequestResponseCycle) -> None:
        self._soon = None
        if cycle.body:
            cycle.message_event.set()
