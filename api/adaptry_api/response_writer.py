"""Sends the head of a response together with the beginning of its body.

uvicorn writes the two separately, and uvloop makes a system call for each. The first one would wake the
client needlessly.
"""

from __future__ import annotations

import asyncio


class ResponseWriter:
    """Has the methods of a transport that uvicorn's response calls. The first piece is held back until the
    second one is written, or until the next iteration of the event loop.
    """

    __slots__ = ("_has_begun", "_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._has_begun = False
        self._head = b""

    def write(self, piece: bytes) -> None:
        if not self._has_begun:
            self._has_begun, self._head = True, piece
            self._loop.call_soon(self._send_head)
            return
        if self._head:
            head, self._head = self._head, b""
            if piece:
                self._transport.writelines((head, piece))
                return
            piece = head
        self._transport.write(piece)

    def close(self) -> None:
        self._send_head()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _send_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
