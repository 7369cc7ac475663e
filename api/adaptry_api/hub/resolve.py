"""`/resolve/{revision}/{path}`: a file; `HEAD` describes it and gives its address, `GET` sends its bytes.

A client caches a file under its `ETag` and the commit that the revision named at that time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from fastapi import Request, Response
from starlette.background import BackgroundTask

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry_api.auth_policy import app_state_of
from adaptry_api.downloads import bytes_response
from adaptry_api.hub.addresses import Path, Revision
from adaptry_api.hub.kept_snapshots import FindSnapshot
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.snapshots import Snapshot
from adaptry_api.hub.warnings import add_warnings
from adaptry_api.redirects import redirect_to_bucket

ROUTES = hub_router()
ONE_WORD_ROUTES = hub_router()
"""For repositories with one-word names. `all_routes` puts them after `ROUTES` of both `raw` and `resolve`."""


async def resolve(request: Request, find: FindSnapshot, revision: Revision, path: Path) -> Response:
    snapshot, file, warnings = await find.file(revision, path)
    headers = {
        "ETag": f'"{file.etag}"',
        "X-Repo-Commit": snapshot.commit,
        "X-Linked-Etag": f'"{file.etag}"',
        "X-Linked-Size": str(file.size),
        "Cache-Control": "private, no-cache",
    }
    state = app_state_of(request)

    def read_on(start: int) -> Iterator[bytes]:
        return snapshot.read(file.path, start)

    digest = Digest(file.sha256) if file.sha256 else None
    response = await redirect_to_bucket(request, digest, file.path, file.size, read_on)
    if response is None:
        limiter = state.remote_reads if snapshot.is_remote else state.downloads
        response = await bytes_response(request, file.path, file.size, read_on, limiter, headers)
    add_warnings(response, "state", warnings)
    is_sent = request.method == "GET" and response.status_code in (200, 302)
    if is_sent and file.path == snapshot.counted:
        response.background = BackgroundTask(_count_download, snapshot)
    return response


ROUTES.add_api_route("/{namespace}/{name}/resolve/{revision}/{path:path}", resolve, methods=["GET", "HEAD"])
ONE_WORD_ROUTES.add_api_route("/{word}/resolve/{revision}/{path:path}", resolve, methods=["GET", "HEAD"])


def _count_download(snapshot: Snapshot) -> None:
    with suppress(AdaptryError):  # the bytes are sent; one missing download in the counts does no harm
        snapshot.count_download()
