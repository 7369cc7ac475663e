"""`GET …/commits/{revision}`: the history of a revision, newest first."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from starlette.responses import JSONResponse

from adaptry.registry.pagination import iter_items
from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.hub.addresses import MODELS, Name, Revision, next_link
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.tree_entries import format_time

ROUTES = hub_router()
_PAGE = 50
_MAX_LENGTH = 200
_TOTAL = "X-Total-Count"


@ROUTES.get(f"{MODELS}/commits/{{revision}}")
def commits(
    request: Request,
    name: Name,
    revision: Revision,
    registry: CallersRegistry,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = _PAGE,
    expand: Annotated[list[str], Query(max_length=16)] = [],  # noqa: B006  never changed
    brackets: Annotated[list[str], Query(alias="expand[]", max_length=16)] = [],  # noqa: B006
) -> Response:
    """Lists the commits of a repository, newest first."""
    page = registry.commits.list(name, revision, cursor, limit)
    is_formatted = "formatted" in (*expand, *brackets)
    found = [
        {
            "id": commit.id,
            "title": commit.title,
            "message": commit.message,
            "date": format_time(commit.at),
            "authors": [{"user": commit.author}],
        }
        | ({"formatted": {"title": commit.title, "message": commit.message}} if is_formatted else {})
        for commit in page.items
    ]
    headers = next_link(request, page.next) if page.next else {}
    if limit == 1 and cursor is None:  # how the JavaScript client counts
        headers[_TOTAL] = str(
            sum(1 for _ in iter_items(lambda at: registry.commits.list(name, revision, at, _MAX_LENGTH)))
        )
    return JSONResponse(found, headers=headers)
