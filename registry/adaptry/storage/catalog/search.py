"""Search: the versions that meet a query's conditions, in an order, page by page.

The cost must not grow with the number of versions. If fewer than `SELECTIVE` versions can meet a condition,
these are listed from its index, and all conditions are tested on each. Otherwise a scan of an index of
the order gives candidates, window by window, until a page is full. Without an order, that is the sparsest
list among the terms; versions that have one of several terms, such as the namespaces of a reader, are in
several lists, which are followed together (`term_windows`).

Candidates may match rarely. So a request tests a limited number of them; then the page ends early, possibly
without any version, and its cursor continues from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import field
from datetime import datetime
from functools import partial

from adaptry.core import query
from adaptry.core.errors import Invalid, InvalidQuery
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.query import Not, Query
from adaptry.core.query_terms import FitsTerm
from adaptry.registry.sort_keys import parse_search_sort
from adaptry.storage.catalog import search_positions
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.conditions import search_conditions
from adaptry.storage.catalog.cursor_seal import CursorSeal
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.index_scans import IndexScan
from adaptry.storage.catalog.predicates import is_postgres
from adaptry.storage.catalog.search_condition import SearchCondition
from adaptry.storage.catalog.search_plan import few_versions, matching, scan_of
from adaptry.storage.catalog.search_positions import Ordering, SealMaker, SearchPosition

SELECTIVE = 2000
MAX_TESTS = 24_000
"""The number of candidates that a request tests, times the conditions of each, but no fewer than four."""
MAX_VERDICTS = 100
"""The number of versions whose files a request reads, to compute whether an engine serves them."""
MAX_SECONDS = 2.0
"""For how long it does."""
_WIDEST, _WIDEST_REMOTE = 2000, 8000
"""Maximum number of candidates that one statement tests. On PostgreSQL, each statement is a round trip."""

Verdicts = Callable[[int], bool]
"""Whether the version with that key has all verdicts that the query requires."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A query with its text, its order, and the page."""

    text: str
    query: Query
    cursor: str | None
    limit: int
    sort: str = "newest"
    reverse: bool = False

    @property
    def about(self) -> str:
        """Identifies the search in its cursors."""
        order = "" if (self.sort, self.reverse) == ("newest", False) else f" by {self.sort} {self.reverse:d}"
        return f"search {self.text}{order}"


@dataclass(frozen=True, slots=True)
class FoundVersions:
    """A page of a search: the keys of its versions, and the cursor of the next page."""

    keys: Sequence[int]
    next: str | None


def search(
    tx: Reads,
    scope: ReadScope,
    request: SearchRequest,
    now: datetime,
    verdicts: Callable[[Sequence[tuple[FitsTerm, bool]]], Verdicts] | None = None,
) -> FoundVersions:
    """The matching visible versions. `verdicts` gives the test of `fits:` terms (and whether each is
    excluded). Raises `InvalidQuery`, `Invalid` for an unknown order.
    """
    ordering = Ordering(parse_search_sort(request.sort), request.reverse)
    seal = None if scope.namespaces is None else partial(CursorSeal, tx)
    after, began = _after(request, ordering, seal)
    parsed = request.query if began is None else query.parse(request.text, began)
    fits = _fits_of(parsed)
    if fits and verdicts is None:
        raise InvalidQuery("fits: cannot be used here")
    conditions = search_conditions(tx, scope, parsed)
    budget = _Budget(MAX_TESTS // max(4, parsed.terms))
    test = verdicts(fits) if fits and verdicts else None
    few = few_versions(tx, conditions, ordering, SELECTIVE)
    if few is not None:  # these were tested already
        shown, next = _page(tx, few, (), after, request.limit, budget, test)
    else:
        scan = scan_of(tx, scope, parsed, conditions, ordering, SELECTIVE)
        shown, next = _page(tx, scan, conditions, after, request.limit, budget, test)
    moment = (began or now) if parsed.is_relative else None
    return FoundVersions(
        [position.key for position in shown],
        search_positions.encode(next, moment, request.about, seal) if next else None,
    )


def _after(
    request: SearchRequest, ordering: Ordering, seal: SealMaker | None
) -> tuple[SearchPosition | None, datetime | None]:
    if request.cursor is None:
        return None, None
    try:
        return search_positions.decode(request.cursor, ordering, request.about, seal)
    except Invalid as error:
        raise InvalidQuery(error.message) from None


def _fits_of(parsed: Query) -> list[tuple[FitsTerm, bool]]:
    found: list[tuple[FitsTerm, bool]] = []
    for part in parsed.parts:
        plain = part.part if isinstance(part, Not) else part
        if isinstance(plain, FitsTerm):
            found.append((plain, isinstance(part, Not)))
    return found


@dataclass(slots=True)
class _Budget:
    """The limits of what a request may still read: a number of candidates, and verdicts until a moment."""

    candidates: int
    verdicts: int = MAX_VERDICTS
    until: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)

    def take_verdict(self) -> bool:
        """Whether there may be one more; the first one always may."""
        if self.verdicts == 0 or (self.verdicts < MAX_VERDICTS and time.monotonic() > self.until):
            return False
        self.verdicts -= 1
        return True


def _page(
    tx: Reads,
    scan: IndexScan,
    conditions: Sequence[SearchCondition],
    after: SearchPosition | None,
    limit: int,
    budget: _Budget,
    verdict: Verdicts | None,
) -> tuple[list[SearchPosition], SearchPosition | None]:
    """The positions of a page, and the start of the next one."""
    found: list[SearchPosition] = []
    width = limit + 1
    widest = _WIDEST_REMOTE if is_postgres(tx) else _WIDEST
    while True:
        window = scan.window(tx, after, width)
        keys = [position.key for position in window.positions]
        matches = set(matching(tx, keys, conditions) if conditions else keys)
        for position in window.positions:
            if position.key not in matches:
                continue
            if verdict is not None:
                if not budget.take_verdict():
                    return found, after
                if not verdict(position.key):
                    after = position
                    continue
            if len(found) == limit:
                return found, found[-1]
            found.append(position)
            after = position
        after = window.next
        budget.candidates -= max(window.read, 1)
        if after is None or budget.candidates <= 0:
            return found, after
        width = min(width if len(matches) > width // 4 else 4 * width, widest, budget.candidates)
