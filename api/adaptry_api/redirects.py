"""Redirects downloads of large files to the bucket, at a presigned address that expires in minutes.

Only if the operator enables it and the files are in a bucket; the bytes then never pass through this server.
The same access checks apply as to a file that the server sends.
"""

from __future__ import annotations

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adaptry.core.digest import Digest
from adaptry_api.auth_policy import app_state_of
from adaptry_api.downloads import Read
from adaptry_api.header_text import header_text
from adaptry_api.ranges import parse_range

LINK_SECONDS = 300
MIN_REDIRECT_SIZE = 1 << 20
"""Minimum size in bytes for a redirect: the server delivers smaller files faster itself."""


async def redirect_to_bucket(
    request: Request, digest: Digest | None, path: str, size: int, read: Read
) -> Response | None:
    """The redirect; None if this server is to send the file. Raises the same errors as reading the file."""
    state = app_state_of(request)
    if digest is None or not state.presigns_downloads or size < MIN_REDIRECT_SIZE:
        return None
    if request.method != "GET" or not {"if-match", "if-none-match"}.isdisjoint(request.headers):
        return None
    range_header = request.headers.get("range")
    if range_header and parse_range(range_header, size) is None:
        return None  # refused by us, with our error message

    def find() -> str | None:
        if not state.blobs.has(digest):
            return None  # computed, or from another Hub
        for _ in read(size):  # missing; a caller who may not read it gets the refusal instead
            pass
        return state.blobs.download_url(digest, header_text(path.rpartition("/")[2], 255), LINK_SECONDS)

    address = await to_thread.run_sync(find)
    if address is None:
        return None
    return RedirectResponse(address, 302, {"Cache-Control": "no-store"})
