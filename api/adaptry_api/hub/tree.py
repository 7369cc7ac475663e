"""`GET …/tree/{revision}`: the files of a folder, in pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Query, Request, Response
from starlette.responses import JSONResponse

from adaptry.core.identity import Identity
from adaptry_api.auth_policy import AnswerInMemory, with_quick_answer
from adaptry_api.hub.addresses import MODELS, ONE_WORD, Path, Revision, next_link, path_in, revision_in
from adaptry_api.hub.quick_requests import TREE, plain
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.snapshot_cache import FindSnapshot, cached, snapshot_lookup
from adaptry_api.hub.snapshots import CachedAnswer, Snapshot
from adaptry_api.hub.tree_entries import folder_entries

ROUTES = hub_router()
_PAGE = 1000
Cursor = Annotated[int, Query(ge=0, le=1_000_000)]


_IS_RECURSIVE = {b"": False, b"recursive=false&expand=false": False, b"recursive=true&expand=false": True}
"""The queries that clients send, and whether they ask for subfolders."""


async def _quick(request: Request, identity: Identity) -> Response:
    what, make = _plain_page(request)
    lookup = snapshot_lookup(request, identity)
    return (await lookup.answer_from_files(what, revision_in(request), make)).response()


def _from_memory(request: Request, identity: Identity) -> AnswerInMemory | None:
    snapshot = snapshot_lookup(request, identity).cached_now(revision_in(request))
    if snapshot is None:
        return None
    what, make = _plain_page(request)
    answer = snapshot.answers.get(what) or cached(what, make)(snapshot)
    return AnswerInMemory(answer.response())


def _plain_page(request: Request) -> tuple[str, Callable[[Snapshot], CachedAnswer]]:
    """The name of the answer, and the function that makes it."""
    path, is_recursive = path_in(request), _IS_RECURSIVE[request.scope["query_string"]]

    def make(snapshot: Snapshot) -> CachedAnswer:
        found = folder_entries(snapshot, path, is_recursive=is_recursive)
        return CachedAnswer.of(_page(request, found, _PAGE, 0))

    return f"tree {is_recursive} {path}", make


@with_quick_answer(_quick, plain(TREE, _IS_RECURSIVE), _from_memory)
async def tree(
    request: Request,
    find: FindSnapshot,
    revision: Revision,
    path: Path,
    recursive: bool = False,
    expand: bool = False,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = _PAGE,
    cursor: Cursor = 0,
) -> Response:
    """A page of a folder's entries; the `Link` header has the next page."""

    def make(snapshot: Snapshot) -> Response:
        found = folder_entries(snapshot, path, is_recursive=recursive, is_expanded=expand)
        return _page(request, found, limit, cursor)

    return await find.use(revision, make)


def _page(request: Request, found: list[dict[str, Any]], limit: int, cursor: int) -> Response:
    """(`Any`: JSON.)"""
    headers = next_link(request, str(cursor + limit)) if len(found) > cursor + limit else {}
    return JSONResponse(found[cursor : cursor + limit], headers=headers)


for _at in (MODELS, ONE_WORD):
    ROUTES.add_api_route(f"{_at}/tree/{{revision}}", tree, methods=["GET"])
    ROUTES.add_api_route(f"{_at}/tree/{{revision}}/{{path:path}}", tree, methods=["GET"])
