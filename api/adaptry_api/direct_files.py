"""Adds ASGI's extension "zero copy send" to uvicorn: the system sends an open file to the connection, and no
thread copies its bytes.

Otherwise, a thread reads each piece of the file, and the event loop writes it to the socket. Connections that
the server encrypts do not have the extension.
"""

from __future__ import annotations

import asyncio
import functools
import os
import select
import time
from threading import Lock
from typing import Any

from anyio import to_thread
from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from adaptry_api.direct_bodies import DirectBodies
from adaptry_api.downloads import ZERO_COPY_SEND

_CHUNK = 16 << 20  # bytes that a thread sends before others may use it
_TIMEOUT = 0.02  # seconds in total that a thread waits for a client to read; then the event loop waits


class DirectFiles(DirectBodies):
    """uvicorn's protocol, which sends files without reading them."""

    read_seconds = 60.0
    """Seconds that a client may take to read a piece of at most 1 MiB."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        is_plain = self.transport.get_extra_info("sslcontext") is None
        if self.cycle is not None and is_plain and hasattr(os, "sendfile"):
            self.cycle.scope["extensions"][ZERO_COPY_SEND] = {}
            cycle: Any = self.cycle  # one of whose methods is replaced
            cycle.send = functools.partial(self._send, self.cycle, self.cycle.send)

    async def _send(self, cycle: RequestResponseCycle, send: Any, message: Message) -> None:
        """Sends a message. `send` is uvicorn's method, whose type allows only uvicorn's messages."""
        if message["type"] != ZERO_COPY_SEND:
            await send(message)
            return
        if not cycle.disconnected:
            cycle.transport.write(b"")  # the head of the response, which may be held back
            cycle.expected_content_length -= await self._send_file(cycle, message)
        await send({"type": "http.response.body", "more_body": message.get("more_body", False)})

    async def _send_file(self, cycle: RequestResponseCycle, message: Message) -> int:
        """Returns how many bytes were sent: fewer than requested if the file is shorter, or the connection
        broke.
        """
        file, offset, count = message["file"], message["offset"], message["count"]
        if not await self._drain(cycle):
            return 0
        sender, sent = _Sender(self.transport.get_extra_info("socket").fileno(), file), 0
        try:
            while sent < count and not cycle.disconnected:
                maximum = min(count - sent, _CHUNK)
                work = functools.partial(sender.send, offset + sent, maximum)
                piece = await to_thread.run_sync(work, limiter=message.get("limiter"))
                if piece is None:
                    break
                sent += piece
                if piece < maximum:
                    await self._writable(sender.connection)
        except (OSError, TimeoutError):
            self.transport.abort()
            cycle.disconnected = True
        finally:
            sender.close()
        return sent

    async def _drain(self, cycle: RequestResponseCycle) -> bool:
        """Waits until the transport has sent everything, since the file follows it. False if the connection
        is closed, or if the client does not read.
        """
        end, pause = self.loop.time() + self.read_seconds, 0.0
        while self.transport.get_write_buffer_size() and not self.transport.is_closing():
            if self.loop.time() > end:
                self.transport.abort()
                break
            await asyncio.sleep(pause)
            pause = 0.01
        cycle.disconnected = cycle.disconnected or self.transport.is_closing()
        return not cycle.disconnected

    async def _writable(self, connection: int) -> None:
        """Waits until the client has read enough. Raises `TimeoutError` if it does not."""
        is_writable = asyncio.Event()
        self.loop.add_writer(connection, is_writable.set)
        try:
            async with asyncio.timeout(self.read_seconds):
                await is_writable.wait()
        finally:
            self.loop.remove_writer(connection)


class _Sender:
    """Sends pieces of a file to a connection. If the server cancels a download, its thread continues, so the
    sender duplicates both descriptors, and `close` waits for the thread: otherwise a new file or connection
    could reuse their numbers, and get its bytes.
    """

    def __init__(self, connection: int, file: int) -> None:
        self._lock = Lock()
        self._is_closed = False
        self.connection = os.dup(connection)
        self._file = os.dup(file)

    def send(self, offset: int, count: int) -> int | None:
        """Like `_send_part`; None after `close`."""
        with self._lock:
            return None if self._is_closed else _send_part(self.connection, self._file, offset, count)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            os.close(self.connection)
            os.close(self._file)


def _send_part(connection: int, file: int, offset: int, count: int) -> int | None:
    """Sends up to `count` bytes; fewer if the client does not read them as fast as the system sends. None at
    the end of the file. Raises `OSError` if the connection broke.
    """
    writable = select.poll()
    writable.register(connection, select.POLLOUT)
    sent, timeout = 0, _TIMEOUT
    while sent < count:
        try:
            piece = os.sendfile(connection, file, offset + sent, count - sent)
        except BlockingIOError:
            began = time.monotonic()
            if timeout <= 0 or not writable.poll(timeout * 1000):
                return sent
            timeout -= time.monotonic() - began
            continue
        if not piece:
            return sent or None
        sent += piece
    return sent
