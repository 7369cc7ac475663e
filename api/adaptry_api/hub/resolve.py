"""`/resolve/{revision}/{path}`: a file; `HEAD` describes it and gives its address, `GET` sends its bytes.

A client caches a file under its `ETag` and the commit that the revision named at that time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fastapi import Request, Response

from adaptry.core.digest import Digest
from adaptry.core.identity import Identity
from adaptry.core.refs import Ref
from adaptry_api.app_state import AppState
from adaptry_api.auth_policy import AnswerInMemory, app_state_of, with_quick_answer
from adaptry_api.downloads import bytes_response, response_without_reading
from adaptry_api.hub.addresses import Path, Revision, path_in, revision_in
from adaptry_api.hub.quick_requests import FILE, plain
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.small_files import small_file
from adaptry_api.hub.snapshot_cache import FindSnapshot, SnapshotLookup, file_of, snapshot_lookup
from adaptry_api.hub.snapshots import RepositoryFile, Snapshot
from adaptry_api.hub.warnings import add_warnings
from adaptry_api.redirects import redirect_to_bucket

ROUTES = hub_router()
ONE_WORD_ROUTES = hub_router()
"""For repositories with one-word names. `all_routes` puts them after `ROUTES` of both `raw` and `resolve`."""


async def _quick(request: Request, identity: Identity) -> Response:
    return await _send(request, snapshot_lookup(request, identity), revision_in(request), path_in(request))


def _from_memory(request: Request, identity: Identity) -> AnswerInMemory | None:
    snapshot = snapshot_lookup(request, identity).cached_now(revision_in(request))
    if snapshot is None:
        return None
    _, file, warnings = file_of(path_in(request), snapshot)
    body = snapshot.small_files.get(file.path)  # too small for a redirect to a bucket
    if body is None and request.method == "GET":
        return None
    headers = _headers(snapshot, file)
    response = response_without_reading(request, file.path, file.size, headers, body)
    if not isinstance(response, Response):
        return None
    add_warnings(response, "state", warnings)
    counted = _counted(request, response, snapshot, file)
    return AnswerInMemory(response, partial(_note_sending, app_state_of(request), snapshot, counted))


def _note_sending(state: AppState, snapshot: Snapshot, counted: Ref | None) -> None:
    snapshot.require_available()
    if counted is not None:
        state.download_counts.note(counted)


@with_quick_answer(_quick, plain(FILE), _from_memory)
async def resolve(request: Request, find: FindSnapshot, revision: Revision, path: Path) -> Response:
    return await _send(request, find, revision, path)


async def _send(request: Request, find: SnapshotLookup, revision: str, path: str) -> Response:
    snapshot, file, warnings = await find.file(revision, path)
    state = app_state_of(request)

    def read_on(start: int) -> Iterator[bytes]:
        return snapshot.read(file.path, start)

    digest = Digest(file.sha256) if file.sha256 else None
    response = await redirect_to_bucket(request, digest, file.path, file.size, read_on)
    if response is None:
        limiter = state.remote_reads if snapshot.is_remote else state.downloads
        body = await small_file(request, snapshot, file)
        if body is not None:
            find.note_small_files()
        headers = _headers(snapshot, file)
        response = await bytes_response(request, file.path, file.size, read_on, limiter, headers, body=body)
    add_warnings(response, "state", warnings)
    if (counted := _counted(request, response, snapshot, file)) is not None:
        state.download_counts.note(counted)
    return response


def _headers(snapshot: Snapshot, file: RepositoryFile) -> dict[str, str]:
    return {
        "ETag": f'"{file.etag}"',
        "X-Repo-Commit": snapshot.commit,
        "X-Linked-Etag": f'"{file.etag}"',
        "X-Linked-Size": str(file.size),
        "Cache-Control": "private, no-cache",
    }


def _counted(request: Request, response: Response, snapshot: Snapshot, file: RepositoryFile) -> Ref | None:
    """The version whose download the response counts as, or None."""
    is_sent = request.method == "GET" and response.status_code in (200, 302)
    return snapshot.version if is_sent and file.path == snapshot.counted else None


ROUTES.add_api_route("/{namespace}/{name}/resolve/{revision}/{path:path}", resolve, methods=["GET", "HEAD"])
ONE_WORD_ROUTES.add_api_route("/{word}/resolve/{revision}/{path:path}", resolve, methods=["GET", "HEAD"])
