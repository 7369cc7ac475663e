"""Events: appended in the transaction of the change and never altered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.identity import Identity, Visibility
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry import records
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.audit_log.event_entries import record_event
from adaptry.storage.catalog.bases import BaseAccess, access
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.dialect import HAS_EVENTS
from adaptry.storage.catalog.encoding import decode_map, encode_map, encode_value
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import insert_values
from adaptry.storage.catalog.statement_texts import Selection, statement

if TYPE_CHECKING:
    from adaptry.registry.events import NameFilter

_ALSO_OF_BASE = frozenset({"version.pushed"})
"""Kinds of events that readers get even if they may not see the base that the event mentions."""
_OF_BASE = frozenset({"base", "base_status"})

_MOVES = 50  # moves of aliases that are examined at once
SPAN = 2000
"""Number of events examined at once."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event, and the data that decide who gets it: its adapter's current state, and its base.

    `visibility` is private for an event of a deleted adapter, even if another adapter has its name now.
    `base` is None if the event names no registered base.
    """

    event: records.Event
    name: AdapterName | None
    visibility: Visibility
    base: BaseAccess | None = None

    def is_visible_to(self, identity: Identity) -> bool:
        if self.name is not None and not identity.may_read(self.name, self.visibility):
            return False
        if self.base is not None and self.event.kind not in _ALSO_OF_BASE:
            return self.base.allows(identity)
        return self.name is not None or identity.is_member

    def redacted_for(self, identity: Identity) -> records.Event:
        """The event without details about a base that the reader may not see."""
        if self.base is None or self.base.allows(identity):
            return self.event
        kept = {key: text for key, text in self.event.detail.items() if key not in _OF_BASE}
        return self.event.model_copy(update={"detail": kept})


def record(
    tx: Transaction,
    kind: str,
    *,
    at: datetime,
    by: str,
    adapter: AdapterRecord | None = None,
    number: int | None = None,
    detail: Mapping[str, object] | None = None,
    before: Mapping[str, object] | None = None,
) -> None:
    """Appends an event; `detail` is stored as text, without values that are None. The audit log records it
    too, with the values before the change: `before`, and `was` of `detail`.
    """
    texts = {key: str(value) for key, value in (detail or {}).items() if value is not None}
    name = str(adapter.name) if adapter else None
    values = {
        "at": at,
        "by": by,
        "kind": kind,
        "adapter_id": adapter.key if adapter else None,
        "name": name,
        "number": number,
        "detail": encode_map(texts),
    }
    insert_values(tx, "events", [values])
    tx.info[HAS_EVENTS] = True
    record_event(tx, kind, at, by, adapter.name if adapter else None, number, detail or {}, before)


def page(
    tx: Transaction, identity: Identity, adapter: AdapterRecord, cursor: str | None, limit: int
) -> records.Page[records.Event]:
    """An adapter's events, newest first, through all its renames; without those about unreadable bases."""
    about = f"events {adapter.key}"
    before = cursors.decode_number(cursor, about, cursors.BIG_INTEGER)
    query = (
        sm.select(orm.EventRow)
        .where(sm.col(orm.EventRow.adapter_id) == adapter.key)
        .order_by(sm.col(orm.EventRow.seq).desc())
    )
    if before is not None:
        query = query.where(sm.col(orm.EventRow.seq) < before)
    rows = tx.exec(query.limit(limit + 1)).all()
    events = [_event(row) for row in rows[:limit]]
    created_at = tx.exec(sm.select(orm.AdapterRow.created_at).where(orm.AdapterRow.id == adapter.key)).one()
    stored = _with_bases(
        tx,
        [
            StoredEvent(event, adapter.name, _visibility(event.at, created_at, adapter.visibility))
            for event in events
        ],
    )
    return records.Page[records.Event](
        items=tuple(one.redacted_for(identity) for one in stored if one.is_visible_to(identity)),
        next=cursors.encode(events[-1].seq, about) if len(rows) > limit else None,
    )


def last_of_alias(tx: Transaction, adapter: AdapterRecord, alias: str) -> records.Event | None:
    """The last move or removal of an alias; None if it never existed."""
    named = f"%{encode_value(alias)}%".replace("_", "!_")  # an alias can contain no other wildcard
    asked = {"adapter": adapter.key, "before": cursors.BIG_INTEGER, "named": named}
    while rows := run_select(tx, _moves, asked):
        for row in rows:
            if decode_map(row.detail).get("alias") == alias:
                return _event(row)
        asked["before"] = rows[-1].seq
    return None


@statement
def _moves() -> Selection:
    """Selects moves whose details contain a text. Decoding the moves of all other aliases would take
    seconds.
    """
    events = tables.events
    return (
        sa.select(events)
        .where(
            events.c.adapter_id == sa.bindparam("adapter"),
            events.c.kind.in_(("alias.moved", "alias.removed")),
            events.c.detail.like(sa.bindparam("named"), escape="!"),
            events.c.seq < sa.bindparam("before"),
        )
        .order_by(events.c.seq.desc())
        .limit(_MOVES)
    )


def newest(tx: Transaction) -> int:
    """The number of the last event; 0 before the first."""
    return tx.exec(sm.select(sa.func.max(orm.EventRow.seq))).one() or 0


def read_since(tx: Transaction, after: int, limit: int = SPAN) -> tuple[StoredEvent, ...]:
    """The next events of all adapters, oldest first, at most `limit`."""
    columns = (
        *vars(orm.EventRow)["__table__"].c,
        sm.col(orm.AdapterRow.name).label("of"),
        orm.AdapterRow.visibility,
        sm.col(orm.AdapterRow.created_at).label("of_created_at"),
    )
    query = (
        sm.select(*columns)
        .join(orm.AdapterRow, sm.col(orm.AdapterRow.id) == sm.col(orm.EventRow.adapter_id), isouter=True)
        .where(sm.col(orm.EventRow.seq) > after)
        .order_by(sm.col(orm.EventRow.seq))
        .limit(limit)
    )
    return _with_bases(tx, [_stored_event(row) for row in tx.execute(query)])


def read_batch(
    tx: Transaction, identity: Identity, after: int | None, limit: int, about: NameFilter
) -> records.EventBatch:
    """The new events for one reader among the `SPAN` events after number `after`; None: nothing yet."""
    if after is None:
        return records.EventBatch(seq=newest(tx))
    stored = read_since(tx, after)
    return (
        select_batch(stored, identity, about, after, limit)
        if stored
        else records.EventBatch(seq=min(after, newest(tx)))
    )


def select_batch(
    stored: Sequence[StoredEvent], identity: Identity, about: NameFilter, after: int, limit: int
) -> records.EventBatch:
    """The events of `stored` (all after number `after`) for one reader, and the last examined number."""
    items: list[records.Event] = []
    for one in stored:
        if about.matches(one.event) and one.is_visible_to(identity):
            items.append(one.redacted_for(identity))
            if len(items) == limit:
                return records.EventBatch(items=tuple(items), seq=one.event.seq)
    return records.EventBatch(items=tuple(items), seq=stored[-1].event.seq if stored else after)


def _with_bases(tx: Transaction, stored: Sequence[StoredEvent]) -> tuple[StoredEvent, ...]:
    """Adds to the events the visibility of the bases that they name."""
    named = {one.event.seq: id for one in stored if (id := _base_of(one.event)) is not None}
    if not named:
        return tuple(stored)
    known = access(tx, set(named.values()))
    return tuple(
        replace(one, base=known.get(named[one.event.seq])) if one.event.seq in named else one
        for one in stored
    )


def _base_of(event: records.Event) -> Digest | None:
    text = event.detail.get("id" if event.kind.startswith("base.") else "base", "")
    try:
        return Digest.parse(text)
    except Invalid:
        return None


def _stored_event(row: sa.Row[Any]) -> StoredEvent:
    if not row.of:
        return StoredEvent(_event(row), None, "private")
    visibility = _visibility(row.at, row.of_created_at, cast(Visibility, row.visibility))
    return StoredEvent(_event(row), AdapterName.parse(row.of), visibility)


def _visibility(at: datetime, created_at: datetime, current: Visibility) -> Visibility:
    """The visibility of an event. A new public adapter with the name of a deleted one does not make the
    earlier history public.
    """
    return "private" if at < created_at else current


def _event(row: orm.EventRow | sa.Row[Any]) -> records.Event:
    """(`Any`: the columns of an event, with others beside them.)"""
    assert row.seq is not None
    return records.Event(
        seq=row.seq,
        at=row.at,
        by=row.by,
        kind=row.kind,
        name=AdapterName.parse(row.name) if row.name else None,
        number=row.number,
        detail=decode_map(row.detail),
    )
