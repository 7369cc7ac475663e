"""`GET …/tree/{revision}`: the files of a folder, in pages."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from starlette.responses import JSONResponse

from adaptry_api.hub.addresses import MODELS, ONE_WORD, Path, Revision, next_link
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.repo_types import FindRepository
from adaptry_api.hub.tree_entries import folder_entries

ROUTES = hub_router()
_PAGE = 1000
Cursor = Annotated[int, Query(ge=0, le=1_000_000)]


def tree(
    request: Request,
    find: FindRepository,
    revision: Revision,
    path: Path,
    recursive: bool = False,
    expand: bool = False,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = _PAGE,
    cursor: Cursor = 0,
) -> Response:
    """A page of a folder, with the next one in `Link`."""
    snapshot = find().snapshot(revision)
    found = folder_entries(snapshot, path, is_recursive=recursive, is_expanded=expand)
    headers = next_link(request, str(cursor + limit)) if len(found) > cursor + limit else {}
    return JSONResponse(found[cursor : cursor + limit], headers=headers)


for _at in (MODELS, ONE_WORD):
    ROUTES.add_api_route(f"{_at}/tree/{{revision}}", tree, methods=["GET"])
    ROUTES.add_api_route(f"{_at}/tree/{{revision}}/{{path:path}}", tree, methods=["GET"])
