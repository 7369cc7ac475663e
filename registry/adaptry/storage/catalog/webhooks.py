"""Webhooks in the catalog: their rows as values, and the current rights of their owners."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.webhooks import WebhookInfo, WebhookRequest
from adaptry.storage.catalog import events, tokens
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.dialect import HAS_EVENTS
from adaptry.storage.catalog.encoding import decode_list, encode_list
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rights import current_rights, encode_rights
from adaptry.storage.catalog.rows import WebhookDeliveryRow, WebhookRow
from adaptry.storage.catalog.version_info import table_of

_WEBHOOKS = table_of(WebhookRow)
_ENABLED = select_columns(_WEBHOOKS.c.id).where(_WEBHOOKS.c.disabled_at.is_(None)).limit(1)


@dataclass(frozen=True, slots=True)
class WebhookRecord:
    """A webhook as it is stored. `secrets` sign its messages, the newest first."""

    info: WebhookInfo
    cursor: int
    secrets: tuple[str, ...]


def insert(
    tx: Transaction, request: WebhookRequest, owner: Identity, secret: str, now: datetime
) -> WebhookRecord:
    """A webhook for the events from now on."""
    row = WebhookRow(
        namespace=request.namespace,
        url=request.url,
        adapters=request.adapters,
        kinds=encode_list(request.kinds),
        by=owner.name,
        rights=encode_rights(owner),
        secret=secret,
        cursor=events.newest(tx),
        created_at=now,
    )
    tx.add(row)
    tx.flush()
    return _record(row, now)


def find(tx: Transaction, id: int, now: datetime) -> WebhookRecord | None:
    row = tx.get(WebhookRow, id)
    return _record(row, now) if row else None


def every(tx: Transaction, now: datetime, namespace: str | None = None) -> tuple[WebhookRecord, ...]:
    """All webhooks, or those of a namespace, oldest first."""
    query = select(WebhookRow).order_by(col(WebhookRow.id))
    if namespace is not None:
        query = query.where(WebhookRow.namespace == namespace)
    return tuple(_record(row, now) for row in tx.exec(query))


def enabled(tx: Transaction, now: datetime) -> tuple[WebhookRecord, ...]:
    """The webhooks that get messages; healthy ones first."""
    query = select(WebhookRow).where(col(WebhookRow.disabled_at).is_(None))
    return tuple(_record(row, now) for row in tx.exec(query.order_by(col(WebhookRow.failures))))


def is_any_enabled(tx: Reads) -> bool:
    return bool(run_select(tx, _ENABLED, {}))


def count(tx: Transaction, namespace: str) -> int:
    return tx.exec(select(func.count()).where(WebhookRow.namespace == namespace)).one()


def owner(tx: Transaction, id: int) -> Identity | None:
    """The owner with their current rights; None if they are disabled, or their token is revoked."""
    row = tx.get_one(WebhookRow, id)
    identity = current_rights(tx, row.by, row.rights)
    return None if tokens.is_revoked(tx, identity) else identity


def rotate(tx: Transaction, id: int, secret: str, until: datetime, now: datetime) -> WebhookRecord:
    """Signs with a new secret, and with the current one until then."""
    row = tx.get_one(WebhookRow, id)
    row.old_secret, row.old_secret_until, row.secret = row.secret, until, secret
    tx.flush()
    return _record(row, now)


def enable(tx: Transaction, id: int, now: datetime) -> WebhookRecord:
    """Enables the webhook, for events from now on."""
    row = tx.get_one(WebhookRow, id)
    row.disabled_at = row.disabled_reason = None
    row.failures, row.cursor = 0, events.newest(tx)
    tx.flush()
    return _record(row, now)


def disable(tx: Transaction, id: int, reason: str, now: datetime) -> WebhookRecord:
    """Disables the webhook: no more events are sent, and pending messages fail."""
    row = tx.get_one(WebhookRow, id)
    row.disabled_at, row.disabled_reason = now, reason
    tx.flush()
    return _record(row, now)


def note_result(tx: Transaction, id: int, *, is_success: bool) -> None:
    """Records the result of an attempt, and counts the failures since the last success."""
    row = tx.get_one(WebhookRow, id)
    row.failures = 0 if is_success else row.failures + 1


def advance(tx: Transaction, id: int, was: int, cursor: int) -> bool:
    """Moves the cursor from `was` to `cursor`; False if another process has moved it, or the webhook is
    disabled or deleted.
    """
    row = tx.get(WebhookRow, id)
    if row is None or row.cursor != was or row.disabled_at is not None:
        return False
    row.cursor = cursor
    return True


def remove(tx: Transaction, id: int) -> None:
    tx.execute(delete(WebhookDeliveryRow).where(col(WebhookDeliveryRow.webhook_id) == id))
    tx.execute(delete(WebhookRow).where(col(WebhookRow.id) == id))


def wake_sender(tx: Transaction) -> None:
    """Notifies listeners at the commit, although there is no event: the sender is one of them."""
    tx.info[HAS_EVENTS] = True


def _record(row: WebhookRow, now: datetime) -> WebhookRecord:
    assert row.id is not None
    is_rotating = row.old_secret_until is not None and now < row.old_secret_until
    old: Sequence[str] = (row.old_secret,) if is_rotating and row.old_secret else ()
    info = WebhookInfo(
        id=row.id,
        namespace=row.namespace,
        url=row.url,
        adapters=row.adapters,
        kinds=decode_list(row.kinds),
        owner=row.by,
        created_at=row.created_at,
        failures=row.failures,
        old_secret_until=row.old_secret_until if is_rotating else None,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
    )
    return WebhookRecord(info, row.cursor, (row.secret, *old))
