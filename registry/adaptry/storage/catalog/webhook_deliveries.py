"""Messages to webhooks in the catalog.

The events are the outbox: they are written in the transaction of the change, numbered without gaps for
readers, and never altered. A webhook's cursor is the last event for which messages were created. A process
that creates messages moves the cursor in the same transaction, by compare-and-swap: of two servers, one
succeeds.

A sender claims a message by moving its due time: until then, no other process sends it. If the sender dies,
another process sends the message afterwards, with the same id.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, insert, update
from sqlmodel import col, select

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.events import NameFilter
from adaptry.registry.records import Event, Page
from adaptry.registry.webhooks import TEST_KIND, DeliveryState, WebhookDelivery, WebhookInfo
from adaptry.storage.catalog import cursors, events, webhooks
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.events import StoredEvent
from adaptry.storage.catalog.rows import WebhookDeliveryRow
from adaptry.storage.catalog.webhooks import WebhookRecord

_Row = WebhookDeliveryRow
_BATCH = 100  # rows that are looked at together
MAX_DELETED = 1000
"""Maximum number of messages that one transaction of a removal deletes."""


@dataclass(frozen=True, slots=True)
class NewMessages:
    """The events after `was` and up to `cursor` that a webhook is to be sent."""

    webhook: int
    was: int
    cursor: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class ClaimBounds:
    """Nobody else sends a claimed message before `until`. One that was tried `most_tries` times, or was
    created before `oldest`, fails."""

    until: datetime
    most_tries: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A message to send now. `event` is None for a test."""

    id: int
    message: str
    attempt: int
    created_at: datetime
    webhook: WebhookRecord
    event: Event | None


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """The outcome of an attempt to deliver a message; `retry_at` is set if there will be another attempt."""

    is_success: bool
    tried_at: datetime
    milliseconds: int
    status: int | None = None
    error: str | None = None
    retry_at: datetime | None = None


def find_new(tx: Transaction, now: datetime) -> list[NewMessages]:
    """New messages for the events that have none yet, of at most `events.SPAN` events for each webhook."""
    newest = events.newest(tx)
    read: dict[int, tuple[StoredEvent, ...]] = {}
    found = []
    for one in webhooks.enabled(tx, now):
        if one.cursor >= newest:
            continue
        if one.cursor not in read:
            read[one.cursor] = events.read_since(tx, one.cursor)
        stored = read[one.cursor]
        wanted = _wanted(tx, one, stored)
        last = stored[-1].event.seq if stored else newest  # numbers are skipped at the start of an epoch
        found.append(NewMessages(one.info.id, one.cursor, last, wanted))
    return found


def add_new(tx: Transaction, messages: NewMessages, now: datetime) -> bool:
    """Adds the messages unless another process has; returns whether it did."""
    if not webhooks.advance(tx, messages.webhook, messages.was, messages.cursor):
        return False
    rows = [
        {
            "message": _new_id(),
            "webhook_id": messages.webhook,
            "event": event.seq,
            "kind": event.kind,
            "state": "pending",
            "created_at": now,
            "due_at": now,
            "attempts": 0,
        }
        for event in messages.events
    ]
    if rows:
        tx.execute(insert(_Row), rows)
    return True


def add_test(tx: Transaction, webhook: int, now: datetime) -> WebhookDelivery:
    row = _Row(message=_new_id(), webhook_id=webhook, kind=TEST_KIND, created_at=now, due_at=now)
    tx.add(row)
    return _delivery(row)


def next_due(tx: Transaction, webhook: int) -> datetime | None:
    """The time from which the webhook's next message may be sent."""
    query = select(_Row.due_at).where(_Row.webhook_id == webhook, _Row.state == "pending")
    return tx.exec(query.order_by(col(_Row.due_at)).limit(1)).first()


def claim(tx: Transaction, webhook: int, now: datetime, bounds: ClaimBounds) -> ClaimedDelivery | None:
    """The webhook's next message; None if none is due.

    On the way, messages fail that may not be tried again, and those about events that the owner may no
    longer read are withheld.
    """
    record = webhooks.find(tx, webhook, now)
    if record is None or record.info.disabled_at is not None:
        return None
    query = select(_Row).where(_Row.webhook_id == webhook, _Row.state == "pending", col(_Row.due_at) <= now)
    first = query.order_by(col(_Row.due_at), col(_Row.id)).limit(_BATCH)
    while rows := tx.exec(first).all():  # skipped rows are no longer pending
        for row in rows:
            if row.attempts >= bounds.most_tries or row.created_at < bounds.oldest:
                row.state = "failed"
                continue
            event = _readable_event(tx, record, row.event)
            if event is None and row.event is not None:
                row.state = "withheld"
                continue
            row.attempts, row.due_at = row.attempts + 1, bounds.until
            assert row.id is not None
            return ClaimedDelivery(row.id, row.message, row.attempts, row.created_at, record, event)
        tx.flush()
    return None


def store_outcome(tx: Transaction, claimed: ClaimedDelivery, outcome: DeliveryOutcome) -> None:
    """Stores the outcome of an attempt. Does nothing if the message was deleted, or sent again on request, in
    the meantime.
    """
    row = tx.get(_Row, claimed.id)
    if row is None or row.attempts != claimed.attempt or row.state != "pending":
        return
    row.tried_at, row.milliseconds = outcome.tried_at, outcome.milliseconds
    row.status, row.error = outcome.status, outcome.error
    if outcome.is_success:
        row.state = "delivered"
    elif outcome.retry_at is None:
        row.state = "failed"
    else:
        row.due_at = outcome.retry_at
    webhooks.note_result(tx, row.webhook_id, is_success=outcome.is_success)


def page(tx: Transaction, webhook: int, cursor: str | None, limit: int) -> Page[WebhookDelivery]:
    """A page of deliveries, newest first."""
    about = f"deliveries {webhook}"
    before = cursors.decode_number(cursor, about, cursors.BIG_INTEGER)
    query = select(_Row).where(_Row.webhook_id == webhook).order_by(col(_Row.id).desc())
    if before is not None:
        query = query.where(col(_Row.id) < before)
    rows = tx.exec(query.limit(limit + 1)).all()
    last = rows[limit - 1].id if len(rows) > limit else None
    return Page[WebhookDelivery](
        items=tuple(map(_delivery, rows[:limit])),
        next=cursors.encode(last, about) if last is not None else None,
    )


def send_again(tx: Transaction, webhook: int, message: str, now: datetime) -> WebhookDelivery | None:
    """Makes a message pending, with all tries; None if the webhook has none with that id."""
    query = select(_Row).where(_Row.webhook_id == webhook, _Row.message == message)
    row = tx.exec(query).first()
    if row is None:
        return None
    row.state, row.created_at, row.due_at, row.attempts = "pending", now, now, 0
    return _delivery(row)


def fail_pending(tx: Transaction, webhook: int, reason: str) -> None:
    """Marks the pending messages of a disabled webhook as failed."""
    which = (col(_Row.webhook_id) == webhook, col(_Row.state) == "pending")
    tx.execute(update(_Row).where(*which).values(state="failed", error=reason))


def delete_some(tx: Transaction, webhook: int) -> bool:
    """Deletes at most `MAX_DELETED` of a webhook's messages. Returns whether there are no more."""
    ids = list(tx.exec(select(_Row.id).where(_Row.webhook_id == webhook).limit(MAX_DELETED)))
    tx.execute(delete(_Row).where(col(_Row.id).in_(ids)))
    return len(ids) < MAX_DELETED


def prune(tx: Transaction, before: datetime, limit: int) -> int:
    """Deletes at most `limit` of the messages created before that time; returns how many."""
    old = select(_Row.id).where(col(_Row.created_at) < before).order_by(col(_Row.created_at)).limit(limit)
    ids = list(tx.exec(old))
    if ids:
        tx.execute(delete(_Row).where(col(_Row.id).in_(ids)))
    return len(ids)


def _wanted(tx: Transaction, webhook: WebhookRecord, stored: Iterable[StoredEvent]) -> tuple[Event, ...]:
    """The events that the webhook selects and its owner may read now."""
    owner = webhooks.owner(tx, webhook.info.id)
    if owner is None:
        return ()
    info = webhook.info
    names = NameFilter((f"{info.namespace}/{info.adapters}",))
    return tuple(
        one.redacted_for(owner)
        for one in stored
        if one.name is not None
        and _is_of_kind(info, one.event.kind)
        and names.matches(one.event)
        and one.is_visible_to(owner)
    )


def _readable_event(tx: Transaction, webhook: WebhookRecord, seq: int | None) -> Event | None:
    if seq is None:
        return None
    stored = (one for one in events.read_since(tx, seq - 1, 1) if one.event.seq == seq)
    return next(iter(_wanted(tx, webhook, stored)), None)


def _is_of_kind(info: WebhookInfo, kind: str) -> bool:
    return not info.kinds or kind in info.kinds or f"{kind.partition('.')[0]}.*" in info.kinds


def _new_id() -> str:
    return f"msg_{secrets.token_hex(12)}"


def _delivery(row: WebhookDeliveryRow) -> WebhookDelivery:
    state: DeliveryState = row.state  # type: ignore[assignment]  # a column holds what was stored
    return WebhookDelivery(
        message=row.message,
        event=row.event,
        kind=row.kind,
        state=state,
        created_at=row.created_at,
        due_at=row.due_at if row.state == "pending" else None,
        attempts=row.attempts,
        tried_at=row.tried_at,
        status=row.status,
        error=row.error,
        milliseconds=row.milliseconds,
    )
