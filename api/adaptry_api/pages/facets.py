"""Facets of up to 10,000 matches, which the first page loads late, and completion of a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request
from starlette.responses import JSONResponse, Response

from adaptry.adapters.methods import METHODS
from adaptry.core import query
from adaptry.core.errors import InvalidQuery
from adaptry.core.lifecycle import STATE_RULES
from adaptry.core.query_terms import DATE_FIELDS, DIGEST_FIELDS, NUMBER_FIELDS, TEXT_FIELDS
from adaptry.registry.records import VersionInfo
from adaptry.registry.versions import Versions
from adaptry_api.auth_policy import Visitor, VisitorsRegistry, app_state_of
from adaptry_api.pages.facet_counts import FIELDS, MAX_COUNTED, query_term
from adaptry_api.pages.page_responses import render_part
from adaptry_api.pages.page_routes import page_router
from adaptry_api.route_threads import searches

ROUTES = page_router()
FACETS = "/-/facets"
COMPLETE = "/-/complete"
_MAX_VERSIONS = 100
"""Number of versions whose values are offered."""
_OFFERED = 12


@ROUTES.get(FACETS, response_model=None)
@searches
def show_facets(
    request: Request,
    registry: VisitorsRegistry,
    visitor: Visitor,
    q: Annotated[str, Query(max_length=query.MAX_LENGTH)] = "",
) -> Response:
    """Facets of up to 10,000 matches."""
    part = app_state_of(request).facet_counter.count(registry.versions, visitor, q.strip())
    return render_part(
        request, "Counts", "facets.html", part, {"address": search_address, "most": MAX_COUNTED}
    )


@ROUTES.get(COMPLETE, response_model=None)
@searches
def complete_query(
    registry: VisitorsRegistry, q: Annotated[str, Query(max_length=query.MAX_LENGTH)] = ""
) -> Response:
    """Completions of a partly typed query: fields, then values that occur among the matches."""
    return JSONResponse({"queries": completions(registry.versions, q)})


def completions(versions: Versions, q: str) -> list[str]:
    """Returns at most twelve queries that begin with `q`; none while a quoted text is typed."""
    head, _, typed = q.rpartition(" ")
    if not typed or q.count('"') % 2:
        return []
    sign, body = ("-", typed[1:]) if typed.startswith("-") else ("", typed)
    field, colon, begun = body.partition(":")
    is_value = bool(colon) and field in TEXT_FIELDS
    found = _terms(versions, head, field, begun) if is_value else _fields(versions, head, body)
    offered = dict.fromkeys(f"{head} {sign}{one}".strip() for one in found)
    return [one for one in offered if one != q][:_OFFERED]


def _terms(versions: Versions, head: str, field: str, begun: str) -> Iterator[str]:
    """Terms of a field whose value begins as typed."""
    return (query_term(field, one) for one in _values(versions, head, field) if one.startswith(begun))


def _fields(versions: Versions, head: str, body: str) -> Iterator[str]:
    """Fields with which a term can begin, and the metrics of the matches."""
    known = [f"{field}:" for field in (*TEXT_FIELDS, *DIGEST_FIELDS, "fits", "has")]
    known += [f"{field}>=" for field in (*NUMBER_FIELDS, *DATE_FIELDS)]
    if body.startswith("m"):
        known += (f"metric.{name}>=" for one in _matches(versions, head) for name in one.metrics)
    return (one for one in known if one.startswith(body))


_COMPLETED: Mapping[str, Callable[[VersionInfo], Iterable[str]]] = {
    **FIELDS,
    "name": lambda version: (str(version.name),),
    "module": lambda version: version.targets,
    "by": lambda version: (version.created_by,),
}


def _values(versions: Versions, head: str, field: str) -> Iterator[str]:
    """The field's values among the matches of the other terms, then its other possible values."""
    if values_of := _COMPLETED.get(field):
        yield from sorted({value for one in _matches(versions, head) for value in values_of(one)})
    if field == "method":
        yield from METHODS
    elif field == "state":
        yield from STATE_RULES


def _matches(versions: Versions, head: str) -> tuple[VersionInfo, ...]:
    """Versions that match all terms but the last; none while those terms do not parse."""
    try:
        return versions.search(head, None, _MAX_VERSIONS).items
    except InvalidQuery:
        return ()


def search_address(q: str) -> str:
    """The first page with a query."""
    return f"/?{urlencode({'q': q})}"
