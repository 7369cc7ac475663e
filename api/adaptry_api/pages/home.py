"""The first page: search over all versions, beside the versions in production and the latest changes.

Facets count only the newest 200 matches, and the page states that, so its cost does not depend on the number
of versions. If there are more matches, a part that loads later counts up to 10,000.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from adaptry.core import query
from adaptry.core.errors import Invalid
from adaptry.registry.aliases import PRODUCTION
from adaptry.registry.interface import Registry
from adaptry.registry.records import Event, Page, VersionInfo
from adaptry_api.auth_policy import VisitorsRegistry
from adaptry_api.pages.event_sentences import recent_events
from adaptry_api.pages.facet_counts import Facet, facets_of
from adaptry_api.pages.facets import FACETS
from adaptry_api.pages.page_responses import render
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.version_csv import csv_response
from adaptry_api.route_threads import searches

ROUTES = page_router()
_PAGE_SIZE = 25
_MAX_VERSIONS = 200
_SIDE_PANEL_ITEMS = 8
_SORTS = ("newest", "name", "size", "rank")


class HomePage(BaseModel):
    """Versions that match `q`. Facets are of the first `examined` matches, which are all if `is_all`.

    Without a query, `live` has the newest versions in production and `recent` the last events. `problem`
    describes an error in the query.
    """

    q: str
    sort: str
    versions: Page[VersionInfo]
    examined: int = 0
    is_all: bool = True
    facets: tuple[Facet, ...] = ()
    live: tuple[VersionInfo, ...] = ()
    recent: tuple[Event, ...] = ()
    problem: str | None = None


@ROUTES.get("/", response_model=None)
@searches
def show_home(
    request: Request,
    registry: VisitorsRegistry,
    q: Annotated[str, Query(max_length=query.MAX_LENGTH)] = "",
    sort: Annotated[str, Query(max_length=80)] = "newest",
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    format: Annotated[str | None, Query(max_length=8)] = None,
) -> Response:
    """Versions that match a query, all of them by default."""
    status = 200
    try:
        page = _build_page(registry, q.strip(), sort, cursor)
    except Invalid as error:
        page, status = HomePage(q=q, sort=sort, versions=Page(items=()), problem=error.message), 400
    if format == "csv":
        if page.problem is not None:
            raise Invalid(page.problem)
        return csv_response("versions.csv", page.versions.items)
    names = {
        "here": lambda **changes: _address(q, sort, changes),
        "sorts": [*_SORTS, *(f"metric.{name}" for name in _metrics(page.versions.items)[:4])],
        "address": lambda found: _address(found, sort, {}),
        "counted": f"{FACETS}?{urlencode({'q': q})}",
        "grammar": query.GRAMMAR,
    }
    return render(request, "home.html", page, names, status)


def _build_page(registry: Registry, q: str, sort: str, cursor: str | None) -> HomePage:
    examined = registry.versions.search(q, None, _MAX_VERSIONS)
    shown: Page[VersionInfo]
    if sort == "newest" and cursor is None and len(examined.items) <= _PAGE_SIZE:
        shown = examined
    else:
        shown = registry.versions.search(q, cursor, _PAGE_SIZE, sort=sort)
    is_first = not q and cursor is None
    return HomePage(
        q=q,
        sort=sort,
        versions=shown,
        examined=len(examined.items),
        is_all=examined.next is None,
        facets=facets_of(q, examined.items),
        live=registry.versions.search(f"alias:{PRODUCTION}", None, _SIDE_PANEL_ITEMS).items
        if is_first
        else (),
        recent=recent_events(registry.events, _SIDE_PANEL_ITEMS) if is_first else (),
    )


def _metrics(versions: Iterable[VersionInfo]) -> list[str]:
    """The names of their metrics, the most frequent first."""
    return [name for name, _ in Counter(name for one in versions for name in one.metrics).most_common()]


def _address(q: str, sort: str, changes: dict[str, str | None]) -> str:
    """This page's address with other parameters."""
    values: dict[str, str | None] = {"q": q, "sort": "" if sort == "newest" else sort, **changes}
    query_string = urlencode({name: value for name, value in values.items() if value})
    return f"/?{query_string}" if query_string else "/"
