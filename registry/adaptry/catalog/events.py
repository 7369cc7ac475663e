"""Events: what happened, appended in the transaction of the change and never altered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Row, func
from sqlmodel import col, select

from adaptry.catalog import cursors
from adaptry.catalog.adapters import Line
from adaptry.catalog.database import Transaction
from adaptry.catalog.kinds import HAPPENED
from adaptry.catalog.packing import mapped, unmapped
from adaptry.catalog.rows import AdapterRow, EventRow
from adaptry.feed import is_about
from adaptry.identity import Identity, Visibility
from adaptry.records import Event, News, Page
from adaptry.refs import AdapterName

SPAN = 2000
"""So many events are looked at in one go."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event, and what decides who hears of it: its adapter as it is now; none for what is of no adapter."""

    event: Event
    name: AdapterName | None
    visibility: Visibility

    def is_for(self, identity: Identity) -> bool:
        if self.name is None:
            return bool(identity.namespaces)  # bases belong to no namespace
        return identity.may_read(self.name, self.visibility)


def record(
    tx: Transaction,
    kind: str,
    *,
    at: datetime,
    by: str,
    line: Line | None = None,
    number: int | None = None,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Appends an event; `detail` is stored as text, without what is None."""
    texts = {key: str(value) for key, value in (detail or {}).items() if value is not None}
    name = str(line.name) if line else None
    tx.add(
        EventRow(
            at=at,
            by=by,
            kind=kind,
            adapter_id=line.key if line else None,
            name=name,
            number=number,
            detail=mapped(texts),
        )
    )
    tx.info[HAPPENED] = True


def page(tx: Transaction, line: Line, cursor: str | None, limit: int) -> Page[Event]:
    """An adapter's events, newest first, through all its renames."""
    about = f"events {line.key}"
    before = cursors.decode_number(cursor, about)
    query = select(EventRow).where(col(EventRow.adapter_id) == line.key).order_by(col(EventRow.seq).desc())
    if before is not None:
        query = query.where(col(EventRow.seq) < before)
    rows = tx.exec(query.limit(limit + 1)).all()
    events = tuple(_event(row) for row in rows[:limit])
    return Page[Event](
        items=events, next=cursors.encode(events[-1].seq, about) if len(rows) > limit else None
    )


def newest(tx: Transaction) -> int:
    """The number of the last event; 0 before the first."""
    return tx.exec(select(func.max(EventRow.seq))).one() or 0


def since(tx: Transaction, after: int) -> tuple[Told, ...]:
    """The next events of all adapters, oldest first, at most `SPAN`."""
    columns = (*vars(EventRow)["__table__"].c, col(AdapterRow.name).label("of"), AdapterRow.visibility)
    query = (
        select(*columns)
        .join(AdapterRow, col(AdapterRow.id) == col(EventRow.adapter_id), isouter=True)
        .where(col(EventRow.seq) > after)
        .order_by(col(EventRow.seq))
        .limit(SPAN)
    )
    return tuple(_told(row) for row in tx.execute(query))


def look(tx: Transaction, identity: Identity, after: int | None, limit: int, about: Sequence[str]) -> News:
    """What is new for one reader after number `after`, among the next `SPAN` events; None: nothing yet."""
    if after is None:
        return News(seq=newest(tx))
    told = since(tx, after)
    return news(told, identity, about, after, limit) if told else News(seq=min(after, newest(tx)))


def news(told: Sequence[Told], identity: Identity, about: Sequence[str], after: int, limit: int) -> News:
    """What of `told`, which comes after number `after`, is for one reader, and how far that went."""
    items: list[Event] = []
    for one in told:
        if is_about(one.event, about) and one.is_for(identity):
            items.append(one.event)
            if len(items) == limit:
                return News(items=tuple(items), seq=one.event.seq)
    return News(items=tuple(items), seq=told[-1].event.seq if told else after)


def _told(row: Row[Any]) -> Told:
    name = AdapterName.parse(row.of) if row.of else None
    return Told(_event(row), name, cast(Visibility, row.visibility or "private"))


def _event(row: EventRow | Row[Any]) -> Event:
    """(`Any`: the columns of an event, with others beside them.)"""
    assert row.seq is not None
    return Event(
        seq=row.seq,
        at=row.at,
        by=row.by,
        kind=row.kind,
        name=AdapterName.parse(row.name) if row.name else None,
        number=row.number,
        detail=unmapped(row.detail),
    )
