"""The files of a revision."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request, Response

from adaptry.core.errors import FileMissing
from adaptry.core.manifest import FileEntry
from adaptry.registry import protocol
from adaptry_api import downloads
from adaptry_api.auth_policy import CallersRegistry, app_state_of, guarded_router
from adaptry_api.downloads import file_response
from adaptry_api.redirects import redirect_to_bucket
from adaptry_api.route_threads import run_in_own_threads
from adaptry_api.routes.parameters import Name, Revision

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/revisions", "files")


@ROUTES.get("/{revision}/files/{path:path}", response_class=Response, responses=downloads.RESPONSES)
async def download_file(
    request: Request, name: Name, revision: Revision, path: str, registry: CallersRegistry
) -> Response:
    """Download a file of a revision, or one range of its bytes.

    The response may redirect to the bucket that holds the file.
    """

    def find() -> FileEntry:
        entry = registry.commits.tree(name, revision).file(path)
        if entry is None:
            raise FileMissing(f"{name}@{revision.brief} has no file of that name")
        return entry

    def read_on(start: int) -> Iterator[bytes]:
        return registry.files.read(name, revision, path, start)

    entry = await run_in_own_threads("reads", find)
    elsewhere = await redirect_to_bucket(request, entry.sha256, path, entry.size, read_on)
    return elsewhere or await file_response(request, entry, read_on, app_state_of(request).downloads)
