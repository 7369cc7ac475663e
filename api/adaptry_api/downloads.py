"""A stored file as a response: its bytes or one range of them, with caching headers. Large files on this
machine are sent by the system; others are read in 1 MiB pieces.

A file of a revision never changes, so a client may cache it permanently.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from adaptry.core.manifest import FileEntry
from adaptry.storage.blobs.file_chunks import FileChunks
from adaptry_api.errors import HttpProblem
from adaptry_api.etags import has_current
from adaptry_api.header_text import header_text
from adaptry_api.ranges import HttpRange, parse_range

_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", **_BYTES},
    206: {"description": "The requested range.", **_BYTES},
    302: {"description": "The file is at this address for the next few minutes."},
}
"""For the description of a route that answers with a file. (`Any`: OpenAPI's own JSON.)"""

ZERO_COPY_SEND = "http.response.zerocopysend"
"""Name of an extension of ASGI, and of its message. The message's fields `file` (a descriptor), `offset` and
`count` are required; `limiter`, our own field, limits the threads that send (`direct_files`).
"""
_SMALL = 1 << 20  # files up to this size are read and sent at once

FOREVER = "private, max-age=31536000, immutable"
_MEDIA_TYPE = "application/octet-stream"
Read = Callable[[int], Iterator[bytes]]
"""The file's bytes from a position on."""


class _PartToRead(NamedTuple):
    """A part of a file that must be read, and the head of the response that contains it."""

    part: HttpRange
    status: int
    headers: dict[str, str]


async def file_response(
    request: Request, entry: FileEntry, read: Read, limiter: anyio.CapacityLimiter
) -> Response:
    """A file that never changes, so clients may cache it permanently."""
    headers = {"ETag": f'"{entry.sha256.hex}"', "Cache-Control": FOREVER}
    return await bytes_response(request, entry.path, entry.size, read, limiter, headers)


async def bytes_response(
    request: Request,
    path: str,
    size: int,
    read: Read,
    limiter: anyio.CapacityLimiter,
    headers: dict[str, str],
    *,
    body: bytes | None = None,
) -> Response:
    """The response 200, 206 or 304. Raises `HttpProblem` (412, 416). `headers` are those of the file, with
    its `ETag`.

    The first piece is read before the answer begins, so that a missing file gives an error status. If the
    bytes are already in memory, pass them as `body`; nothing is read then.
    """
    response = response_without_reading(request, path, size, headers, body)
    if isinstance(response, Response):
        return response
    part, status, headers = response
    if part.length > _SMALL and ZERO_COPY_SEND in request.scope.get("extensions", {}):
        file = await to_thread.run_sync(_opened, read, part.start, limiter=limiter)
        if file is not None:
            return _SentFile(file, part.length, limiter, status, headers)
    pieces, first = await to_thread.run_sync(_begun, read, part.start, part.length, limiter=limiter)
    if pieces is None:  # streaming takes longer than sending a small file
        return Response(first, status, headers, media_type=_MEDIA_TYPE)
    return StreamingResponse(_sent(first, pieces, part.length, limiter), status, headers, _MEDIA_TYPE)


def response_without_reading(
    request: Request, path: str, size: int, headers: dict[str, str], body: bytes | None
) -> Response | _PartToRead:
    """The response of `bytes_response`, if it needs no bytes except `body`; otherwise the part that must be
    read. Raises `HttpProblem` (412, 416).
    """
    etag = headers["ETag"]
    headers = {**headers, "Accept-Ranges": "bytes"}
    expected = request.headers.get("if-match", "*")
    if expected.strip() != "*" and etag not in expected:  # RFC 9110 §13.1.1
        raise HttpProblem(412, f"{path} no longer has the ETag in If-Match; read it again")
    if has_current(request, etag):
        return Response(status_code=304, headers=headers)
    requested = request.headers.get("range") if request.method == "GET" else None  # RFC 9110 §14.2
    if request.headers.get("if-range", etag) != etag:
        requested = None
    part = parse_range(requested, size)
    if part is None and requested:
        detail = f"{path} is {size:,} bytes; it cannot be read from that offset"
        raise HttpProblem(416, detail, {"Content-Range": f"bytes */{size}"})
    headers |= {
        "Content-Length": str(part.length if part else 0),
        "Content-Disposition": f'attachment; filename="{_saved_as(path)}"',
    }
    if part is None or request.method == "HEAD":
        return Response(headers=headers, media_type=_MEDIA_TYPE)
    if requested and not part.is_whole:
        headers["Content-Range"] = part.content_range
    status = 206 if "Content-Range" in headers else 200
    if body is not None:
        return Response(body[part.start : part.end], status, headers, media_type=_MEDIA_TYPE)
    return _PartToRead(part, status, headers)


@lru_cache(maxsize=1024)
def _saved_as(path: str) -> str:
    return header_text(path.rpartition("/")[2], 255).replace('"', "'").replace("\\", "_")


class _SentFile(Response):
    """A response with the next `length` bytes of an open file, which the system sends."""

    def __init__(
        self,
        file: FileChunks,
        length: int,
        limiter: anyio.CapacityLimiter,
        status: int,
        headers: dict[str, str],
    ) -> None:
        self._file = file
        self._length = length
        self._limiter = limiter
        super().__init__(None, status, headers, _MEDIA_TYPE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            await send(
                {
                    "type": ZERO_COPY_SEND,
                    "file": self._file.fileno(),
                    "offset": self._file.position,
                    "count": self._length,
                    "limiter": self._limiter,
                }
            )
        finally:
            self._file.close()


def _opened(read: Read, start: int) -> FileChunks | None:
    """The file if it is on this machine; otherwise None."""
    pieces = read(start)
    if isinstance(pieces, FileChunks):
        return pieces
    _close(pieces)
    return None


def _begun(read: Read, start: int, length: int) -> tuple[Iterator[bytes] | None, bytes]:
    """The first piece, and the iterator of the others, or None."""
    pieces = read(start)
    first = next(pieces, b"")
    if len(first) < length:
        return pieces, first
    _close(pieces)
    return None, first[:length]


def _close(pieces: Iterator[bytes]) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()


async def _sent(
    first: bytes, pieces: Iterator[bytes], length: int, limiter: anyio.CapacityLimiter
) -> AsyncIterator[bytes]:
    piece: bytes | None = first
    try:
        while piece and length:
            yield piece[:length] if len(piece) > length else piece
            length -= min(length, len(piece))
            if length:
                piece = await to_thread.run_sync(next, pieces, None, limiter=limiter)
    finally:
        _close(pieces)  # even if the client disconnects
