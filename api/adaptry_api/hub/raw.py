"""`/raw/{revision}/{path}`: a file as git stores it; for a large file, its Git LFS pointer."""

from __future__ import annotations

from fastapi import Request, Response

from adaptry.core.digest import Digest
from adaptry_api.auth_policy import app_state_of
from adaptry_api.downloads import bytes_response
from adaptry_api.hub import gitids
from adaptry_api.hub.addresses import Path, Revision
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.resolve import resolve
from adaptry_api.hub.snapshot_cache import FindSnapshot

ROUTES = hub_router()
ONE_WORD_ROUTES = hub_router()
"""For repositories with one-word names. `all_routes` puts them after `ROUTES` of both `raw` and `resolve`."""


async def raw(request: Request, find: FindSnapshot, revision: Revision, path: Path) -> Response:
    """Sends the file, or its Git LFS pointer if it is large."""
    snapshot, file, _ = await find.file(revision, path)
    if file.sha256 is None:
        return await resolve(request, find, revision, path)
    pointer = gitids.pointer(Digest(file.sha256), file.size)
    headers = {
        "ETag": f'"{file.oid}"',
        "X-Repo-Commit": snapshot.commit,
        "Cache-Control": "private, no-cache",
    }
    limiter = app_state_of(request).downloads
    return await bytes_response(
        request, file.path, len(pointer), lambda start: iter(()), limiter, headers, body=pointer
    )


ROUTES.add_api_route("/{namespace}/{name}/raw/{revision}/{path:path}", raw, methods=["GET", "HEAD"])
ONE_WORD_ROUTES.add_api_route("/{word}/raw/{revision}/{path:path}", raw, methods=["GET", "HEAD"])
