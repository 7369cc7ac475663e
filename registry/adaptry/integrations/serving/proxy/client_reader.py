"""Reads a client's bytes within limits of time and size, so that no slow or endless client keeps a thread.

A socket's own timeout covers a single read: a client that sends a byte now and then would keep its connection
forever. Here the deadline covers everything until the next `expect`.
"""

from __future__ import annotations

import io
import socket
import time

from adaptry.core.errors import TooLarge


class ClientReader(io.RawIOBase):
    """The bytes that a client sends. Raises `TimeoutError` after the deadline, `TooLarge` beyond the size."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = 0.0
        self._left = 0

    def expect(self, size: int, seconds: float) -> None:
        """Allows `size` further bytes within `seconds` from now."""
        self._left = size
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed: any buffer
        if self._left <= 0:
            raise TooLarge("the client sends more than is allowed")
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the client is too slow")
        self._connection.settimeout(seconds)
        count = self._connection.recv_into(buffer, min(len(buffer), self._left))
        self._left -= count
        return count
