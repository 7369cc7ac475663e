"""Lists of the repositories that the caller may read, filtered, sorted, in pages.

By default they are sorted by name, and the registry is read one page at a time. Any other order requires
reading all of them first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query, Request, Response
from starlette.responses import JSONResponse

from adaptry.core.errors import Invalid, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.adapters import Adapters
from adaptry.registry.records import AdapterInfo
from adaptry_api.auth_policy import app_state_of
from adaptry_api.hub.adapters import AdapterRepository
from adaptry_api.hub.addresses import next_link
from adaptry_api.hub.info import Brackets, Expand, repo_info_json, select_fields
from adaptry_api.hub.name_case import canonical_namespace
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.repo_lookup import CallersHubReader, HubReader

ROUTES = hub_router()
_PAGE = 200
_MAX_MODELS = 1000
_LOOKED_AT = 5000
"""Maximum number of repositories read for one page, if the filter excludes many."""
_ORDERS: Mapping[str, Callable[[AdapterInfo], datetime | int]] = {
    "createdAt": lambda info: info.created_at,
    "lastModified": lambda info: info.updated_at,
    "last_modified": lambda info: info.updated_at,
    "downloads": lambda info: info.downloads,
    "likes": lambda info: 0,
    "trendingScore": lambda info: info.downloads,
    "trending_score": lambda info: info.downloads,
}
_WITH_FILES = frozenset({"sha", "siblings", "usedStorage", "spaces"})
Words = Annotated[list[str], Query(max_length=32)]
_UNKNOWN_FILTERS = ("apps", "num_parameters")
"""Filters of the Hub by facts that a registry does not know about an adapter."""


@dataclass(frozen=True, slots=True)
class ListingFilter:
    """The filter of a listing: the name must contain all of `words`, and the tags must include all of
    `filters`.
    """

    words: tuple[str, ...]
    filters: tuple[str, ...]
    pipeline: str | None


@dataclass(frozen=True, slots=True)
class ListingCursor:
    """The position where a listing continues: after the first `passed` items of the registry's page at
    `cursor`.
    """

    cursor: str | None = None
    passed: int = 0

    @classmethod
    def parse(cls, text: str) -> ListingCursor:
        passed, dot, cursor = text.partition(".")
        if not dot or not passed.isascii() or not passed.isdigit() or len(passed) > 9:
            raise Invalid("that cursor does not belong to this listing; begin again without one")
        return cls(cursor or None, int(passed))

    def __str__(self) -> str:
        return f"{self.passed}.{self.cursor or ''}"


@ROUTES.get("/api/models")
def models(
    request: Request,
    reader: CallersHubReader,
    author: Annotated[str | None, Query(max_length=96)] = None,
    search: Words = [],  # noqa: B006  never changed
    filter: Words = [],  # noqa: B006
    pipeline_tag: Annotated[str | None, Query(max_length=96)] = None,
    gated: bool = False,
    inference: str = "",
    inference_provider: Words = [],  # noqa: B006
    sort: Annotated[str | None, Query(max_length=40)] = None,
    direction: Annotated[int, Query(ge=-1, le=1)] = -1,
    limit: Annotated[int, Query(ge=1)] = _MAX_MODELS,
    full: bool = False,
    cursor: Annotated[str, Query(max_length=1024)] = "0.",
    expand: Expand = [],  # noqa: B006
    brackets: Brackets = [],  # noqa: B006
) -> Response:
    """A page; `Link` has the next one. No repository is gated, or served by an inference provider.

    Raises `Invalid` for a filter that the registry cannot apply: ignoring it would list other adapters.
    """
    if unknown := [name for name in _UNKNOWN_FILTERS if name in request.query_params]:
        raise Invalid(f"this registry cannot filter a list by {unknown[0]}; list without it")
    is_empty = gated or bool(inference or inference_provider)
    wanted = ListingFilter(
        tuple(word for text in search for word in text.lower().split()),
        tuple(text for each in filter for text in each.split(",")),
        pipeline_tag,
    )
    fields = [*expand, *brackets]
    with_files = full or bool(_WITH_FILES.intersection(fields))
    if author is not None:
        author = canonical_namespace(app_state_of(request), reader.identity, author)
    candidates = _candidates(reader.registry.adapters, author, sort, direction, ListingCursor.parse(cursor))
    found: list[dict[str, Any]] = []
    for looked_at, (info, place) in enumerate(() if is_empty else candidates):
        if len(found) == min(limit, _MAX_MODELS) or looked_at == _LOOKED_AT:
            return JSONResponse(found, headers=next_link(request, str(place)))
        if (body := _item(reader, info, wanted, with_files=with_files)) is not None:
            found.append(select_fields(body, fields))
    return JSONResponse(found)


def _candidates(
    adapters: Adapters, author: str | None, sort: str | None, direction: int, start: ListingCursor
) -> Iterator[tuple[AdapterInfo, ListingCursor]]:
    """The repositories from `start` on, each with its position. Raises `Invalid` for an unknown sort key."""
    if sort is None:
        return _by_name(adapters, author, start)
    order = _ORDERS.get(sort)
    if order is None:
        raise Invalid(f"unknown sort key {sort!a} (one of: {', '.join(_ORDERS)})")
    infos = [info for info, _ in _by_name(adapters, author, ListingCursor())]
    infos.sort(key=lambda info: (order(info), str(info.name)), reverse=direction <= 0)
    return ((info, ListingCursor(None, index)) for index, info in enumerate(infos) if index >= start.passed)


def _by_name(
    adapters: Adapters, author: str | None, start: ListingCursor
) -> Iterator[tuple[AdapterInfo, ListingCursor]]:
    cursor, passed = start.cursor, start.passed
    while True:
        page = adapters.list(author, cursor, _PAGE)
        for index, info in enumerate(page.items):
            if index >= passed:
                yield info, ListingCursor(cursor, index)
        cursor, passed = page.next, 0
        if cursor is None:
            return


def _item(
    reader: HubReader, info: AdapterInfo, wanted: ListingFilter, *, with_files: bool
) -> dict[str, Any] | None:
    """The listing entry of an adapter, or None if the filter excludes it."""
    if not all(word in str(info.name).lower() for word in wanted.words):
        return None
    repository = AdapterRepository(reader, info)
    try:
        snapshot = repository.snapshot("main") if with_files else None
        about = snapshot.details() if snapshot else repository.details("main")
    except NotFound:
        return None  # the adapter was deleted after it was listed
    if not set(wanted.filters) <= {*about.tags, about.library, about.pipeline}:
        return None
    if wanted.pipeline not in (None, about.pipeline):
        return None
    return repo_info_json(repository.id, about, snapshot)
