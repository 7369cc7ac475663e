"""Pages of an adapter's versions, in every order.

Newest first follows an index. For every other order but the reverse, the versions of the adapter are sorted
for each page.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry import records
from adaptry.registry.records import VersionInfo
from adaptry.registry.sort_keys import parse_version_sort
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.lazy_modules import orm, sa, sm
from adaptry.storage.catalog.prepared import PreparedReads
from adaptry.storage.catalog.shown_versions import about_newest, newest_page
from adaptry.storage.catalog.version_info import by_keys


@cache
def _columns() -> Any:
    return {
        "newest": sm.col(orm.VersionRow.number),
        "downloads": sm.col(orm.VersionRow.downloads),
        "rank": sm.col(orm.VersionRow.rank),
        "size": sm.col(orm.VersionRow.size),
    }


@dataclass(frozen=True, slots=True)
class VersionListing:
    """An order of an adapter's versions, as `sort_keys` names it."""

    sort: str = "newest"
    reverse: bool = False

    @property
    def is_prepared(self) -> bool:
        """Whether its pages need no session."""
        return self == VersionListing()

    def about(self, adapter: AdapterRecord) -> str:
        """Identifies the listing in its cursors."""
        order = "" if self == VersionListing() else f" by {self.sort} {self.reverse:d}"
        return about_newest(adapter.key) + order


def page(
    tx: Reads, adapter: AdapterRecord, listing: VersionListing, cursor: str | None, limit: int
) -> records.Page[VersionInfo]:
    """`tx` is a session unless the listing is prepared. Raises `Invalid` for an unknown sort key, and for a
    cursor of another listing.
    """
    about = listing.about(adapter)
    if listing.is_prepared:
        return newest_page(tx, adapter.key, cursor, limit)
    assert not isinstance(tx, PreparedReads)
    last = cursors.decode_number(cursor, about)
    column, metric = parse_version_sort(listing.sort)
    value: Any = sm.col(orm.MetricSummaryRow.newest) if column is None else _columns()[column]  # a column
    query = sa.select(sm.col(orm.VersionRow.id), sm.col(orm.VersionRow.number), value.label("value")).where(
        sm.col(orm.VersionRow.adapter_id) == adapter.key
    )
    if column is None:
        of_version = sm.col(orm.MetricSummaryRow.version_id) == sm.col(orm.VersionRow.id)
        query = query.outerjoin(
            orm.MetricSummaryRow, sa.and_(of_version, sm.col(orm.MetricSummaryRow.metric) == metric)
        )
    if last is not None:
        place = tx.execute(query.where(sm.col(orm.VersionRow.number) == last)).first()
        query = query.where(_is_after(listing, value, place.value if place else None, last))
    rows = tx.execute(query.order_by(*_order(listing, value)).limit(limit + 1)).all()
    shown = rows[:limit]
    following = cursors.encode(shown[-1].number, about) if len(rows) > limit else None
    return records.Page[VersionInfo](items=by_keys(tx, [row.id for row in shown]), next=following)


def _order(listing: VersionListing, value: sa.ColumnElement[Any]) -> tuple[sa.ColumnElement[Any], ...]:
    number = sm.col(orm.VersionRow.number).asc() if listing.reverse else sm.col(orm.VersionRow.number).desc()
    if listing.sort == "newest":
        return (number,)
    return (value.asc() if listing.reverse else value.desc()).nulls_last(), number


def _is_after(
    listing: VersionListing, value: sa.ColumnElement[Any], last: object, number: int
) -> sa.ColumnElement[bool]:
    """Whether a version comes after the one with the value `last` and that number."""
    numbers = sm.col(orm.VersionRow.number)
    beyond = numbers > number if listing.reverse else numbers < number
    if listing.sort == "newest":
        return beyond
    if last is None:
        return sa.and_(value.is_(None), beyond)
    further = value > last if listing.reverse else value < last
    return sa.or_(further, sa.and_(value == last, beyond), value.is_(None))
