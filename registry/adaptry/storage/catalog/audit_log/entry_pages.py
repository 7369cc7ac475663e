"""Reads the audit log: pages by time and conditions, sealed entries in order, checkpoints.

The cost of a page does not depend on the length of the log: each condition that has an index is followed from
where the last page ended, newest or oldest first. If several values match (`alias.*`, several namespaces),
each is followed separately, and the results are merged.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice

from sqlalchemy import ColumnElement, func, or_, tuple_
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from adaptry.core.errors import CorruptData, Invalid
from adaptry.registry.audit_actions import ACTIONS
from adaptry.registry.audit_log import AuditEntry, AuditFilter, format_time
from adaptry.registry.records import Page
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.audit_log.entries import entry_of
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AuditCheckpointRow, AuditEntryRow

Condition = ColumnElement[bool]
_at, _id, _seq = col(AuditEntryRow.at), col(AuditEntryRow.id), col(AuditEntryRow.seq)
_action, _namespace = col(AuditEntryRow.action), col(AuditEntryRow.namespace)


def page(
    tx: Transaction,
    namespaces: Sequence[str] | None,
    filters: AuditFilter,
    cursor: str | None,
    limit: int,
    oldest_first: bool,
) -> Page[AuditEntry]:
    """A page of entries that match the filters, for readers of these namespaces (None: of everything)."""
    found = [tx.exec(query).all() for query in queries(namespaces, filters, cursor, limit, oldest_first)]
    merged = heapq.merge(*found, key=lambda row: (row.at, row.id), reverse=not oldest_first)
    rows = list(islice(_distinct(merged), limit + 1))
    last = rows[limit - 1] if len(rows) > limit else None
    return Page[AuditEntry](
        items=tuple(map(entry_of, rows[:limit])),
        next=cursors.encode(f"{format_time(last.at)} {last.id}", _about(filters, oldest_first))
        if last
        else None,
    )


def queries(
    namespaces: Sequence[str] | None, filters: AuditFilter, cursor: str | None, limit: int, oldest_first: bool
) -> list[SelectOfScalar[AuditEntryRow]]:
    """The queries whose merged rows give a page; each reads one row more than `limit`. Raises `Invalid`."""
    shared = [*_time_conditions(filters), *_plain_conditions(filters)]
    if cursor is not None:
        shared.append(_beyond(cursors.decode(cursor, _about(filters, oldest_first)), oldest_first))
    found = (
        select(AuditEntryRow).where(*shared, *conditions).limit(limit + 1)
        for conditions in _alternatives(namespaces, filters)
    )
    if oldest_first:
        return [query.order_by(_at, _id) for query in found]
    return [query.order_by(_at.desc(), _id.desc()) for query in found]


def sealed(tx: Transaction, start: int, limit: int) -> tuple[AuditEntry, ...]:
    """Sealed entries in the order of their numbers. Raises `CorruptData` for a malformed time."""
    query = select(AuditEntryRow).where(_seq >= start).order_by(_seq).limit(limit)
    try:
        return tuple(map(entry_of, tx.exec(query)))
    except ValueError as error:
        raise CorruptData(f"an entry of the audit log after number {start} has no valid time") from error


def checkpoints(tx: Transaction, after: int, limit: int) -> tuple[str, ...]:
    size = col(AuditCheckpointRow.size)
    return tuple(tx.exec(select(AuditCheckpointRow.note).where(size > after).order_by(size).limit(limit)))


def newest_note(tx: Transaction) -> str | None:
    size = col(AuditCheckpointRow.size)
    return tx.exec(select(AuditCheckpointRow.note).order_by(size.desc()).limit(1)).first()


def count_unsealed(tx: Transaction) -> int:
    return tx.exec(select(func.count()).select_from(AuditEntryRow).where(_seq.is_(None))).one()


def is_in(tx: Transaction, seq: int, namespaces: Sequence[str] | None) -> bool:
    """Whether a matching entry exists in one of the namespaces."""
    query = select(AuditEntryRow.namespace).where(_seq == seq)
    found = tx.exec(query).all()
    return bool(found) and (namespaces is None or found[0] in namespaces)


def _about(where: AuditFilter, oldest_first: bool) -> str:
    """The text that binds a cursor to its listing."""
    return f"audit {where.model_dump_json()} {oldest_first}"


def _distinct(rows: Iterator[AuditEntryRow]) -> Iterator[AuditEntryRow]:
    last = None
    for row in rows:
        if row.id != last:
            yield row
        last = row.id


def _alternatives(namespaces: Sequence[str] | None, where: AuditFilter) -> list[list[Condition]]:
    """Lists of conditions, of which one must hold: each list has one value for each column."""
    of_reader: list[list[Condition]] = [[]] if namespaces is None else [[_namespace == n] for n in namespaces]
    wanted = _wanted(where)
    return [[*one, *other] for one in of_reader for other in wanted]


def _wanted(where: AuditFilter) -> list[list[Condition]]:
    actions: list[list[Condition]] = [[]]
    if where.action is not None:
        actions = [[_action == action] for action in _actions(where.action)]
    if where.resource is None:
        return actions
    name, _, selector = where.resource.partition("@")
    about: list[list[Condition]] = [[col(AuditEntryRow.resource) == name]]
    if selector:
        about = [[*about[0], col(AuditEntryRow.selector) == selector]]
    elif "/" not in name:
        about.append([_namespace == name])
    if len(actions) == 1:
        return [[*one, *actions[0]] for one in about]
    return [[*one, or_(*(condition for (condition,) in actions))] for one in about]


def _actions(text: str) -> list[str]:
    """The actions that a filter selects. Raises `Invalid` for an unknown action."""
    scope = text.removesuffix("*")
    found = [text] if text in ACTIONS else [one for one in ACTIONS if one.startswith(scope)]
    if not found or (text not in ACTIONS and not text.endswith(".*")):
        raise Invalid(
            f"no action {text[:64]!a}; docs/audit.md lists the actions (such as alias.move, token.*)"
        )
    return found


def _time_conditions(where: AuditFilter) -> list[Condition]:
    since = [] if where.since is None else [_at >= where.since]
    return since if where.until is None else [*since, _at < where.until]


def _plain_conditions(where: AuditFilter) -> list[Condition]:
    actor = [] if where.actor is None else [col(AuditEntryRow.actor) == where.actor]
    if where.denied is None:
        return actor
    return [*actor, col(AuditEntryRow.outcome) == ("denied" if where.denied else "allowed")]


def _beyond(place: str, oldest_first: bool) -> Condition:
    """Selects entries after the last page's end. Raises `Invalid` for a malformed cursor."""
    time, _, id = place.partition(" ")
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        raise Invalid("that cursor does not belong to this listing; begin again without one") from None
    if at.tzinfo is None or not (id.isascii() and id.isdigit() and len(id) < 19):
        raise Invalid("that cursor does not belong to this listing; begin again without one")
    here = tuple_(_at, _id)
    there = tuple_(at, int(id))
    return here > there if oldest_first else here < there
