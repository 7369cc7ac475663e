"""Events: what happened, appended in the transaction of the change and never altered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func
from sqlmodel import col, select

from adaptry.catalog import cursors
from adaptry.catalog.adapters import Line
from adaptry.catalog.database import Transaction
from adaptry.catalog.packing import mapped, unmapped
from adaptry.catalog.rows import EventRow
from adaptry.records import Event, Page
from adaptry.refs import AdapterName


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


def newest(tx: Transaction) -> int:
    """The number of the newest event of all, 0 where there is none."""
    return tx.exec(select(func.max(EventRow.seq))).one() or 0


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


def _event(row: EventRow) -> Event:
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
