"""Facets of a search: the values of a few fields that narrow it, with how many versions have each.

The first page counts the newest 200 matches. If there are more, a part that loads later counts up to 10,000,
page by page through the same search. That takes about a second of the server's time, so one search is counted
at a time, and results are kept for a short while.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator

from pydantic import BaseModel

from adaptry.core import query
from adaptry.core.identity import Identity
from adaptry.registry.records import VersionInfo
from adaptry.registry.versions import Versions

MAX_COUNTED = 10_000
_PAGE = 200
_SECONDS = 5.0
"""Maximum seconds for counting one search; then the count covers the versions read so far."""
_KEPT, _KEPT_SECONDS = 64, 20.0
_VALUES = 6


class FacetValue(BaseModel):
    """A value of a field, how many of the examined versions have it, and the query that adds it."""

    value: str
    count: int
    q: str


class Facet(BaseModel):
    """The most frequent values of a field."""

    field: str
    values: tuple[FacetValue, ...]


class FacetsPart(BaseModel):
    """Facets of the first `examined` matches, which are all if `is_all`."""

    q: str
    examined: int
    is_all: bool
    facets: tuple[Facet, ...] = ()


FIELDS: dict[str, Callable[[VersionInfo], Iterable[str]]] = {
    "namespace": lambda version: (version.name.namespace,),
    "base": lambda version: (version.base_name,) if version.base_name else (),
    "method": lambda version: (version.method,),
    "trait": lambda version: version.traits,
    "alias": lambda version: version.aliases,
    "state": lambda version: (version.state,),
}
"""The fields that are counted, and a version's values of each."""


class FacetCounter:
    """Counts facets for one server process, one search at a time, and keeps results for 20 seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counting = threading.Lock()
        self._kept: OrderedDict[tuple[object, ...], tuple[float, FacetsPart]] = OrderedDict()
        self._keeping = threading.Lock()

    def count(self, versions: Versions, visitor: Identity, q: str) -> FacetsPart:
        """The facets of up to 10,000 matches, or of 200 while another search is counted. Raises
        `InvalidQuery`.
        """
        key = (visitor.name, visitor.principal, visitor.token, visitor.grants, visitor.limit, q)
        if found := self._find(key):
            return found
        if not self._counting.acquire(blocking=False):
            return count_facets(versions, q, self._clock, _PAGE)
        try:
            part = count_facets(versions, q, self._clock)
        finally:
            self._counting.release()
        with self._keeping:
            self._kept[key] = (self._clock(), part)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return part

    def _find(self, key: tuple[object, ...]) -> FacetsPart | None:
        with self._keeping:
            at, part = self._kept.get(key, (0.0, None))
            return part if part is not None and self._clock() - at < _KEPT_SECONDS else None


def count_facets(
    versions: Versions, q: str, clock: Callable[[], float] = time.monotonic, maximum: int = MAX_COUNTED
) -> FacetsPart:
    """The facets of the newest `maximum` matches. Raises `InvalidQuery`."""
    began, examined, cursor = clock(), 0, None
    counts: dict[str, Counter[str]] = {field: Counter() for field in FIELDS}
    while True:
        page = versions.search(q, cursor, min(_PAGE, maximum - examined))
        examined += len(page.items)
        _add(counts, page.items)
        cursor = page.next
        if cursor is None or examined >= maximum or clock() - began > _SECONDS:
            break
    facets = tuple(_narrowing_facets(q, counts, examined))
    return FacetsPart(q=q, examined=examined, is_all=cursor is None, facets=facets)


def facets_of(q: str, versions: Iterable[VersionInfo]) -> tuple[Facet, ...]:
    """The facets of these versions."""
    versions = tuple(versions)
    counts: dict[str, Counter[str]] = {field: Counter() for field in FIELDS}
    _add(counts, versions)
    return tuple(_narrowing_facets(q, counts, len(versions)))


def _add(counts: dict[str, Counter[str]], versions: Iterable[VersionInfo]) -> None:
    for version in versions:
        for field, values_of in FIELDS.items():
            counts[field].update(values_of(version))


def _narrowing_facets(q: str, counts: dict[str, Counter[str]], examined: int) -> Iterator[Facet]:
    """The fields that narrow the result: those of which the versions have more than one value."""
    for field, found in counts.items():
        narrowing = {value: count for value, count in found.items() if count < examined}
        if not narrowing:
            continue
        maximum = sorted(narrowing.items(), key=lambda one: (-one[1], one[0]))[:_VALUES]
        yield Facet(
            field=field,
            values=tuple(
                FacetValue(value=value, count=count, q=query.also(q, query_term(field, value)))
                for value, count in maximum
            ),
        )


def query_term(field: str, value: str) -> str:
    """A term of the search language."""
    return f'{field}:"{value}"' if set(value) & set(" ()") else f"{field}:{value}"
