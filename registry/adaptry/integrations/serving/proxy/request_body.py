"""Reads the body of a client's request: a JSON object, within limits of size, time and memory.

The name of the model is in the body, so the whole body is read before any of it is sent to the engine. Large
bodies reserve their size first, since all of them together may take only a fixed amount of memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from io import BufferedReader
from typing import Any

from adaptry.core import strictjson
from adaptry.core.errors import Busy, Invalid, TooLarge
from adaptry.integrations.serving.proxy.client_reader import ClientReader

MAX_BODY = 16 << 20
_LIMITS = strictjson.JsonLimits(size=MAX_BODY, depth=64, nodes=2_000_000)
_SMALL = 64 << 10  # bodies up to this size reserve nothing
_MAX_LARGE_BYTES = 128 << 20  # bytes of all larger bodies together
_MIN_BYTES_PER_SECOND = 64 << 10  # bytes a second that a client must send


class LargeBodies:
    """The memory that large bodies may take together."""

    def __init__(self, size: int = _MAX_LARGE_BYTES) -> None:
        self._left = size
        self._guard = threading.Lock()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Reserves memory for the block. Raises `Busy` if too little is left."""
        taken = size if size > _SMALL else 0
        with self._guard:
            if taken > self._left:
                raise Busy("too many large requests are being read; try again")
            self._left -= taken
        try:
            yield
        finally:
            with self._guard:
                self._left += taken


def body_size(headers: Message) -> int:
    """The size that a request declares. Raises `Invalid`, or `TooLarge` beyond `MAX_BODY`."""
    lengths = headers.get_all("Content-Length", [])
    length = lengths[0].strip() if len(lengths) == 1 else ""
    if "Transfer-Encoding" in headers or not (length.isascii() and length.isdigit()):
        raise Invalid("the request needs one Content-Length, and no Transfer-Encoding")
    if len(length) > 12 or int(length) > MAX_BODY:
        raise TooLarge(f"the request has more than {MAX_BODY >> 20} MiB")
    return int(length)


def read_body(
    source: ClientReader, buffered: BufferedReader[ClientReader], size: int, grace: float
) -> dict[str, Any]:
    """Reads `size` bytes, in `grace` seconds plus one for each 64 KiB. (`Any`: JSON.) Raises `Invalid`,
    `TimeoutError`; `ConnectionError` if the client leaves before."""
    source.expect(size, grace + size / _MIN_BYTES_PER_SECOND)
    data = buffered.read(size)
    if len(data) < size:
        raise ConnectionAbortedError("the client disconnected during its request")
    body = strictjson.loads(data, _LIMITS, "the request")
    if not isinstance(body, dict):
        raise Invalid("the request is not a JSON object")
    return body
