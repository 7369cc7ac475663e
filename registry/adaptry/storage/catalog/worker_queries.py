"""Workers and their loaded adapters, as values for readers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, and_, case, exists, func, or_
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.core.lifecycle import State
from adaptry.core.refs import AdapterName
from adaptry.registry.records import Page
from adaptry.registry.workers import (
    ENDED,
    Condition,
    ResidentInfo,
    ResidentSummary,
    WorkerInfo,
    WorkerProblem,
)
from adaptry.storage.catalog import bases, cursors
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, ResidentRow, VersionRow, WorkerRow
from adaptry.storage.catalog.workers import WorkerRecord, gone, is_lost

_SUBJECT = "workers"
_BY_NAME = (col(WorkerRow.name), col(WorkerRow.owner), col(ResidentRow.served_as), col(VersionRow.number))
_MAY_SERVE = and_(col(ResidentRow.condition).not_in(sorted(ENDED)), col(WorkerRow.gone_at).is_(None))
"""As `ResidentInfo.may_be_served`."""
_IS_CLOSED = or_(col(ResidentRow.dropped_at).is_not(None), col(WorkerRow.gone_at).is_not(None))


def of_version(tx: Transaction, version: int, now: datetime) -> tuple[ResidentInfo, ...]:
    """The workers that have or had a version, in name order."""
    return tuple(_infos(tx, col(ResidentRow.version_id) == version, now))


def summary(
    tx: Transaction, version: int, now: datetime, limit: int, served_as: str | None
) -> ResidentSummary:
    """The number of workers that have or had a version, and some of them; with a name, only those that serve
    it under this name.
    """
    has_it = col(ResidentRow.version_id) == version
    if served_as is not None:
        has_it &= col(ResidentRow.served_as) == served_as
    counts = (
        select_columns(
            func.count(), func.sum(case((_MAY_SERVE, 1), else_=0)), func.sum(case((_IS_CLOSED, 1), else_=0))
        )
        .select_from(ResidentRow)
        .join(WorkerRow, col(WorkerRow.id) == col(ResidentRow.worker_id))
        .where(has_it)
    )
    total, may_serve, closed = tx.execute(counts).one()
    order = (case((_MAY_SERVE, 0), (_IS_CLOSED, 2), else_=1), *_BY_NAME)
    first = tuple(_infos(tx, has_it, now, order, limit))
    return ResidentSummary(total=total, may_serve=may_serve or 0, closed=closed or 0, first=first)


def info(tx: Transaction, worker: WorkerRecord, scope: ReadScope, now: datetime) -> WorkerInfo:
    return _with_residents(tx, [tx.get_one(WorkerRow, worker.key)], scope, now)[0]


def page(
    tx: Transaction,
    owner: str,
    scope: ReadScope,
    cursor: str | None,
    limit: int,
    now: datetime,
) -> Page[WorkerInfo]:
    """Workers within `scope`, in the order of names and owners."""
    query = select(WorkerRow).order_by(WorkerRow.name, WorkerRow.owner).limit(limit + 1)
    if cursor is not None:
        name, _, of = cursors.decode(cursor, _SUBJECT).partition(" ")  # worker names contain no space
        query = query.where(
            or_(
                col(WorkerRow.name) > name,
                and_(col(WorkerRow.name) == name, col(WorkerRow.owner) > of),
            )
        )
    if (seen := _is_seen(owner, scope)) is not None:
        query = query.where(seen)
    rows = tx.exec(query).all()
    infos = _with_residents(tx, rows[:limit], scope, now)
    following = (
        cursors.encode(f"{infos[-1].worker} {infos[-1].owner}", _SUBJECT) if len(rows) > limit else None
    )
    return Page[WorkerInfo](items=tuple(infos), next=following)


def may_see(tx: Transaction, worker: WorkerRecord, owner: str, scope: ReadScope) -> bool:
    seen = _is_seen(owner, scope)
    query = select(WorkerRow.id).where(WorkerRow.id == worker.key)
    return seen is None or tx.exec(query.where(seen)).first() is not None


def _is_seen(owner: str, scope: ReadScope) -> ColumnElement[bool] | None:
    """The visible workers: the caller's own, and those with a readable adapter. None means all."""
    of_adapters = scope.adapter_condition()
    if of_adapters is None:
        return None
    has = (
        select(ResidentRow.worker_id)
        .join(VersionRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .join(AdapterRow, col(VersionRow.adapter_id) == col(AdapterRow.id))
        .where(col(ResidentRow.worker_id) == col(WorkerRow.id), of_adapters)
    )
    return or_(col(WorkerRow.owner) == owner, exists(has))


def _with_residents(
    tx: Transaction, rows: Sequence[WorkerRow], scope: ReadScope, now: datetime
) -> list[WorkerInfo]:
    has = col(ResidentRow.worker_id).in_([row.id for row in rows]) & (
        col(ResidentRow.condition) != "unloaded"
    )
    of_adapters = scope.adapter_condition()
    residents = _infos(tx, has if of_adapters is None else has & of_adapters, now)
    names = bases.visible_names(tx, scope, {row.base_id for row in rows if row.base_id})
    return [
        WorkerInfo(
            worker=row.name,
            owner=row.owner,
            engine=row.engine,
            version=row.version,
            base=row.base,
            base_name=_base_name(row, names),
            url=row.url,
            slots=row.slots,
            last_event=row.last_event,
            first_at=row.first_at,
            reported_at=row.reported_at,
            lease=row.lease,
            max_age=row.max_age,
            is_lost=is_lost(row, now),
            is_answering=row.is_answering,
            gone=gone(row),
            residents=tuple(one for one in residents if (one.worker, one.owner) == (row.name, row.owner)),
            problems=tuple(map(WorkerProblem.model_validate, json.loads(row.problems))),
        )
        for row in rows
    ]


def _base_name(row: WorkerRow, names: Mapping[str, tuple[str, ...]]) -> str | None:
    """The registry's name of the base: the engine's own name for it, if that is one of several."""
    found = names.get(row.base_id or "", ())
    return row.base if row.base in found else next(iter(found), None)


def _infos(
    tx: Transaction,
    which: ColumnElement[bool],
    now: datetime,
    order: Sequence[Any] = _BY_NAME,
    limit: int | None = None,
) -> list[ResidentInfo]:
    """(`Any`: columns and expressions.)"""
    query = (
        select(WorkerRow, ResidentRow, AdapterRow.name, VersionRow)
        .join(ResidentRow, col(ResidentRow.worker_id) == col(WorkerRow.id))
        .join(VersionRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .join(AdapterRow, col(VersionRow.adapter_id) == col(AdapterRow.id))
        .where(which)
        .order_by(*order)
        .limit(limit)
    )
    return [
        ResidentInfo(
            worker=worker.name,
            owner=worker.owner,
            name=AdapterName.parse(name),
            number=version.number,
            digest=Digest(version.digest),
            state=cast(State, version.state),
            served_as=resident.served_as,
            condition=cast(Condition, resident.condition),
            since=resident.since,
            last_used=resident.last_used,
            ended_at=resident.ended_at,
            dropped_at=resident.dropped_at,
            reason=resident.reason,
            is_lost=is_lost(worker, now),
            is_answering=worker.is_answering,
            reported_at=worker.reported_at,
            gone=gone(worker),
        )
        for worker, resident, name, version in tx.exec(query)
    ]
