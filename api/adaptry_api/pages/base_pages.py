"""Bases: their list, and the page of one with its fingerprint, its names, its copies and the adapters on it.

Copies are a part that loads when it comes into view; a limited number of bases is compared, by their records.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, islice
from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from adaptry.adapters.base_record import BaseRecord
from adaptry.core.refs import AdapterName
from adaptry.operations.base_registry import in_match_order, iter_matches
from adaptry.registry.base_info import BaseInfo, BaseMatch
from adaptry.registry.records import Page, VersionInfo
from adaptry_api.auth_policy import VisitorsRegistry
from adaptry_api.pages.page_responses import render, render_part
from adaptry_api.pages.page_routes import page_router
from adaptry_api.pages.text_csv import csv_file
from adaptry_api.pages.version_csv import csv_response
from adaptry_api.route_threads import searches

ROUTES = page_router()
BASES, BASE = "/-/bases", "/-/base"
_BASES = 50
_VERSIONS = 50
_COMPARED = 24
"""Maximum number of bases that are compared with the one shown."""
_FACTS = 24

_Key = Annotated[str, Query(min_length=1, max_length=256)]
_Cursor = Annotated[str | None, Query(max_length=1024)]
_Format = Annotated[str | None, Query(max_length=8)]


class BasesPage(BaseModel):
    """Bases that the visitor may see, newest first."""

    bases: Page[BaseInfo]


class BasePage(BaseModel):
    """A base, the digests of the parts that its id does not cover, and a page of the versions on it.

    `tensors` counts its tensors, and `facts` are fields of its config.
    """

    base: BaseInfo
    tensors: int
    facts: dict[str, str]
    chat_template: str | None = None
    versions: Page[VersionInfo]


class CopiesPart(BaseModel):
    """The bases that are like this one, best match first; `is_all` if every candidate was compared."""

    key: str
    matches: tuple[BaseMatch, ...] = ()
    is_all: bool = True


@ROUTES.get(BASES, response_model=None)
def show_bases(
    request: Request, registry: VisitorsRegistry, cursor: _Cursor = None, format: _Format = None
) -> Response:
    """The list of bases."""
    page = BasesPage(bases=registry.bases.list(cursor, _BASES))
    if format == "csv":
        return _csv(page.bases.items)
    return render(request, "bases.html", page, {"address_of": base_address})


@ROUTES.get(BASE, response_model=None)
@searches
def show_base(
    request: Request,
    registry: VisitorsRegistry,
    key: _Key,
    cursor: _Cursor = None,
    format: _Format = None,
) -> Response:
    """A base by one of its names, its id, or the beginning of its id."""
    info = registry.bases.get(key)
    versions = registry.versions.search(f"base:{info.id} state:*", cursor, _VERSIONS)
    if format == "csv":
        return csv_response(f"{_title(info).replace('/', '-')}.csv", versions.items)
    record = registry.bases.record(info.id)
    page = BasePage(
        base=info,
        tensors=len(record.tensors),
        facts=_facts(record),
        chat_template=str(record.chat_template) if record.chat_template else None,
        versions=versions,
    )
    names = {
        "title": _title(info),
        "address": base_address(str(info.id)),
        "copies": f"{BASE}/copies?key={info.id}",
        "tree": _tree(versions.items),
    }
    return render(request, "base_model.html", page, names)


@ROUTES.get(f"{BASE}/copies", response_model=None)
def show_copies(request: Request, registry: VisitorsRegistry, key: _Key) -> Response:
    """The bases that are the same model as this one, or have its shapes."""
    info = registry.bases.get(key)
    candidates = iter_matches(registry.bases, registry.bases.record(info.id))
    others = (one for one in candidates if one.base.id != info.id)
    compared = list(islice(others, _COMPARED))
    is_all = len(compared) < _COMPARED
    part = CopiesPart(key=key, matches=in_match_order(compared), is_all=is_all)
    return render_part(
        request, "Copies", "copies.html", part, {"address_of": base_address, "compared": len(compared)}
    )


def base_address(key: str) -> str:
    """The page of a base."""
    return f"{BASE}?key={quote(key, safe='/:')}"


def _title(info: BaseInfo) -> str:
    return info.names[0] if info.names else info.id.brief


def _facts(record: BaseRecord) -> dict[str, str]:
    """The simple fields of its config, as text."""
    simple = {
        key: str(value)
        for key, value in sorted(record.facts.items())
        if isinstance(value, str | int | float | bool)
    }
    return dict(islice(simple.items(), _FACTS))


def _tree(versions: Iterable[VersionInfo]) -> list[tuple[AdapterName, list[VersionInfo]]]:
    """The versions by adapter, in the order of names, the newest version of each first."""
    ordered = sorted(versions, key=lambda one: (one.name, -one.number))
    return [(name, list(found)) for name, found in groupby(ordered, key=lambda one: one.name)]


def _csv(bases: Iterable[BaseInfo]) -> Response:
    columns = ("names", "id", "model_type", "parameters", "dtypes", "adapters", "stored", "created_at")
    rows = (
        (
            " ".join(one.names),
            one.id,
            one.model_type,
            one.parameters,
            " ".join(one.dtypes),
            one.adapters,
            "yes" if one.is_stored else "no",
            one.created_at,
        )
        for one in bases
    )
    return csv_file("bases.csv", columns, rows)
