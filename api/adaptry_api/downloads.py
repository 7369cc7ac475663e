"""A stored file as an answer: its bytes or one range of them, in 1 MiB pieces, with caching headers.

A file of a revision never changes, so a client may cache it permanently.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import lru_cache
from typing import Any

import anyio
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from adaptry.core.manifest import FileEntry
from adaptry_api.errors import HttpProblem
from adaptry_api.header_text import header_text
from adaptry_api.ranges import parse_range

_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", **_BYTES},
    206: {"description": "The requested range.", **_BYTES},
    302: {"description": "The file is at this address for the next few minutes."},
}
"""For the description of a route that answers with a file. (`Any`: OpenAPI's own JSON.)"""

FOREVER = "private, max-age=31536000, immutable"
Read = Callable[[int], Iterator[bytes]]
"""The file's bytes from a position on."""


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
    """200, 206 or 304; raises `HttpProblem` (416). `headers` are those of the file, its `ETag` among them.

    The first piece is read before the answer begins, so that a missing file gives an error status. If the
    bytes are already in memory, pass them as `body`; nothing is read then.
    """
    etag = headers["ETag"]
    headers = {**headers, "Accept-Ranges": "bytes"}
    if etag in request.headers.get("if-none-match", ""):
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
        return Response(headers=headers, media_type="application/octet-stream")
    if requested and not part.is_whole:
        headers["Content-Range"] = part.content_range
    status = 206 if "Content-Range" in headers else 200
    if body is not None:
        return Response(body[part.start : part.end], status, headers, media_type="application/octet-stream")
    pieces, first = await to_thread.run_sync(_begun, read, part.start, part.length, limiter=limiter)
    if pieces is None:  # streaming takes longer than sending a small file
        return Response(first, status, headers, media_type="application/octet-stream")
    return StreamingResponse(
        _sent(first, pieces, part.length, limiter), status, headers, media_type="application/octet-stream"
    )


@lru_cache(maxsize=1024)
def _saved_as(path: str) -> str:
    return header_text(path.rpartition("/")[2], 255).replace('"', "'").replace("\\", "_")


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
        _close(pieces)  # also if the client disconnects
