"""A small proxy between a client and the server, in the client's process, which can cut, alter or end the
stream.

It does not parse HTTP: requests are only searched for the header that requests a range.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from urllib.parse import urlsplit

_PIECE = 1 << 16
PROXY: Proxy | None = None
"""The one of this process, where a line asks for one."""


class Proxy:
    """Listens on a free loopback port, and forwards everything to `endpoint`.

    `cut_downloads_after`, `cut_uploads_after`: the number of bytes in that direction after which a connection
    ends, `cuts` times. `flip_in_uploads_over`: the number of bytes after which one bit of an upload is
    flipped. `ranges`: the requested Range headers. `passed_down`: the bytes of all responses.
    """

    def __init__(self, endpoint: str) -> None:
        global PROXY  # noqa: PLW0603
        PROXY = self
        self._there = (urlsplit(endpoint).hostname, urlsplit(endpoint).port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.cut_downloads_after: int | None = None
        self.cut_uploads_after: int | None = None
        self.cuts = 0
        self.flip_in_uploads_over: int | None = None
        self.flip_in_downloads_over: int | None = None
        self.flipped = 0
        self.passed_down = 0
        self.ranges: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Refuses all connections from now on, like a stopped server."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            _end(each)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(self._there)
            self._open += [near, far]
            threading.Thread(target=self._up, args=(near, far), daemon=True).start()
            threading.Thread(target=self._down, args=(far, near), daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        passed = 0
        while piece := _received(near):
            asked = re.findall(rb"\r\nrange: *(bytes=[0-9-]+)", piece, re.IGNORECASE)
            self.ranges += [found.decode() for found in asked]
            limit = self.flip_in_uploads_over
            if limit is not None and passed <= limit < passed + len(piece):
                piece = self._flip(piece, limit - passed)
            passed += len(piece)
            if self._cuts(passed, self.cut_uploads_after) or not _sent(far, piece):
                break
        _end(near, far)

    def _down(self, far: socket.socket, near: socket.socket) -> None:
        passed = 0
        while piece := _received(far):
            limit = self.flip_in_downloads_over
            if limit is not None and passed <= limit < passed + len(piece):
                piece = self._flip(piece, limit - passed)
            passed += len(piece)
            self.passed_down += len(piece)
            if self._cuts(passed, self.cut_downloads_after) or not _sent(near, piece):
                break
        _end(near, far)

    def _cuts(self, passed: int, limit: int | None) -> bool:
        if limit is None or passed <= limit or not self.cuts:
            return False
        self.cuts -= 1
        return True

    def _flip(self, piece: bytes, at: int) -> bytes:
        self.flipped += 1
        return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(_PIECE)
    except OSError:
        return b""


def _sent(target: socket.socket, piece: bytes) -> bool:
    try:
        target.sendall(piece)
    except OSError:
        return False
    return True


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
