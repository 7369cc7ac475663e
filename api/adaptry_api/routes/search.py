"""Search over all versions that the caller may read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query, Request, Response

from adaptry.core import query
from adaptry.core.identity import Identity
from adaptry.registry import protocol
from adaptry.registry.records import Page, VersionInfo
from adaptry.registry.sort_keys import SEARCH_SORT_KEYS
from adaptry_api.auth_policy import (
    AnswerInMemory,
    CallersRegistry,
    app_state_of,
    guarded_router,
    with_quick_answer,
)
from adaptry_api.route_threads import run_in_own_threads, searches
from adaptry_api.routes.parameters import Cursor, Limit, Reverse

_SORT = (
    f"The order: {', '.join(f'`{key}`' for key in SEARCH_SORT_KEYS)}. All but `name` begin with the newest or"
    " the largest values; versions without a value come last."
)
ROUTES = guarded_router(f"{protocol.PREFIX}/search", "search")


def _is_plain(request: Request) -> bool:
    """Whether the parameters are written as every client of ours writes them; FastAPI explains any other."""
    given = request.query_params
    limit = given.get("limit", "50")
    return (
        len(given.multi_items()) == len(given)
        and limit.isascii()
        and limit.isdigit()
        and len(limit) <= 4
        and given.get("reverse", "false") in ("true", "false")
        and len(given.get("cursor", "")) <= 1024
        and len(given.get("sort", "")) <= 512
    )


async def _quick_search(request: Request, identity: Identity) -> Response:
    state, address = app_state_of(request), request.scope["query_string"].decode("latin-1")
    kept = await state.searches.get(address, identity)
    if kept is not None:
        return Response(kept, media_type="application/json")
    given, registry = request.query_params, state.registry(identity)
    text = given.get("q", "")

    def search() -> bytes:
        return registry.versions.search_json(
            text,
            given.get("cursor"),
            int(given.get("limit", "50")),
            sort=given.get("sort", "newest"),
            reverse=given.get("reverse") == "true",
        )

    parsed = query.parse(text, datetime.now(UTC))
    read = state.commits.with_commit(search, is_search=True)
    if parsed.reads_files or not state.searching.is_local:  # these wait for I/O
        body, commit = await run_in_own_threads("searches", read)
    else:
        body, commit = await state.searching.run(read)
    if not parsed.reads_files and not parsed.is_relative:
        state.searches.put(address, identity, body, commit)
    return Response(body, media_type="application/json")


def _search_from_memory(request: Request, identity: Identity) -> AnswerInMemory | None:
    state, address = app_state_of(request), request.scope["query_string"].decode("latin-1")
    body = state.searches.peek_at(address, identity, state.commits.last_known())
    return AnswerInMemory(Response(body, media_type="application/json")) if body is not None else None


@ROUTES.get("")
@with_quick_answer(_quick_search, _is_plain, _search_from_memory)
@searches
def search_versions(
    registry: CallersRegistry,
    q: Annotated[str, Query(description=query.GRAMMAR)] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
    sort: Annotated[str, Query(max_length=512, description=_SORT)] = "newest",
    reverse: Reverse = False,
) -> Page[VersionInfo]:
    """Search versions.

    Without `q`, the result is all versions that the caller may read. Adjacent conditions must all hold, such
    as `base:meta-llama/Llama-3.1-8B rank<=16 metric.accuracy>0.8`; `OR`, parentheses and `-` combine them,
    such as `(alias:prod OR alias:canary) -tag:draft`.

    A request reads a limited number of rows. If few versions match, a page may have fewer than `limit` items,
    or none, and still have a `next`: continue until a page has no `next`.
    """
    return registry.versions.search(q, cursor, limit, sort=sort, reverse=reverse)
