"""The files of a revision."""

from __future__ import annotations

from anyio import to_thread
from fastapi import Request, Response

from adaptry import wire
from adaptry.errors import FileMissing
from adaptry.manifest import FileEntry
from adaptry_api.downloads import file_answer
from adaptry_api.guard import CallersRegistry, guarded, store_of
from adaptry_api.routes.parameters import Name, Revision

ROUTES = guarded(f"{wire.PREFIX}/adapters/{{namespace}}/{{name}}/revisions", "files")


@ROUTES.get("/{revision}/files/{path:path}", response_class=Response)
async def read(
    request: Request, name: Name, revision: Revision, path: str, registry: CallersRegistry
) -> Response:
    """A file, or one `Range` of it."""

    def find() -> FileEntry:
        entry = registry.tree(name, revision).file(path)
        if entry is None:
            raise FileMissing(f"{name}@{revision.brief} has no file of that name")
        return entry

    return await file_answer(
        request,
        await to_thread.run_sync(find),
        lambda start: registry.read_file(name, revision, path, start),
        store_of(request).downloads,
    )
