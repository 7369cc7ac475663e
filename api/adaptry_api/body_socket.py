"""Lets a thread read a large request body directly from the connection's socket.

Otherwise, the event loop receives each piece, the HTTP parser copies it, and a queue passes it to the thread
that stores it. This is a third of the server's work on a large upload. A body of known length needs no
parser.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator

from adaptry_api.body_pace import BodyPace
from adaptry_api.errors import HttpProblem

BODY_SOCKET = "adaptry.body_socket"
"""Key in a scope's extensions: a function that returns the `BodySocket` of the request, or None."""
DIRECT_BYTES = "adaptry.direct_bytes"
"""Key in a scope's extensions: the number of bytes of the body that bypassed the event loop."""

_PIECE = 512 << 10
_AT_LEAST = 256 << 10  # bytes that must have arrived before the thread is woken
_TICK_SECONDS = 0.5  # maximum wait before the thread reads the bytes that have arrived and checks `cancel`


class BodySocket:
    """The part of a body that uvicorn has not delivered yet. `first` are the bytes already received, and
    `left` is the number of bytes still to come. Until `close`, only one thread reads from `connection`.
    """

    def __init__(self, connection: socket.socket, first: bytes, left: int) -> None:
        self.left = left
        self.failure: HttpProblem | None = None
        """The error to raise if `pieces` ended early because the sender was too slow."""
        self._connection = connection
        self._first = first
        self._has_reader = False
        self._is_cancelled = False

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives. Ends early if the connection breaks, the sender is too slow, or after
        `cancel`.
        """
        self._has_reader = True
        if self._first:
            yield self._first
        pace, readable = BodyPace(), select.poll()
        readable.register(self._connection, select.POLLIN)
        self._wake_at(_AT_LEAST)
        while self.left and not self._is_cancelled:
            if self.left < _AT_LEAST:
                self._wake_at(self.left)
            began = time.monotonic()
            readable.poll(_TICK_SECONDS * 1000)
            piece = self._received()
            self.left -= len(piece or b"")
            try:
                pace.add(len(piece or b""), time.monotonic() - began)
            except HttpProblem as slow:
                self.failure = slow
                return
            if piece == b"":
                return
            if piece:
                yield piece

    def cancel(self) -> None:
        """Makes `pieces` end soon, whatever thread it runs in."""
        self._is_cancelled = True
        if not self._has_reader:
            self._connection.close()

    def close(self) -> None:
        """Stops reading. Only the reading thread may call this."""
        if self._connection.fileno() >= 0:
            self._wake_at(1)
        self._connection.close()

    def _received(self) -> bytes | None:
        """The bytes that have arrived; None before any have, and empty if the connection is broken."""
        try:
            return self._connection.recv(min(self.left, _PIECE), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _wake_at(self, size: int) -> None:
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
