"""Workers in the catalog, and what each has: rows that a report brings up to date, and that a recall is proved by.

What a worker no longer reports stays for thirty days as `unloaded`, so that it is known who had a version that is
recalled later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, delete, exists, or_
from sqlmodel import col, select

from adaptry.catalog import cursors
from adaptry.catalog.adapters import visibility_of
from adaptry.catalog.database import Transaction
from adaptry.catalog.rows import AdapterRow, ResidentRow, VersionRow, WorkerRow
from adaptry.catalog.sight import Sight
from adaptry.digest import Digest
from adaptry.identity import Identity
from adaptry.lifecycle import WITHDRAWN, State
from adaptry.records import Page
from adaptry.refs import AdapterName
from adaptry.residency import (
    GONE,
    Condition,
    Dropped,
    Resident,
    ResidentInfo,
    Trouble,
    Withdrawal,
    WorkerInfo,
    WorkerReport,
)

KEPT = timedelta(days=30)
_ABOUT = "workers"
Named = tuple[AdapterName, Digest]
_Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Known:
    """A version that a report names, as the catalog knows it."""

    version: int
    line: int
    state: State


def find(tx: Transaction, name: str) -> WorkerRow | None:
    return tx.exec(select(WorkerRow).where(WorkerRow.name == name)).first()


def put(tx: Transaction, row: WorkerRow | None, report: WorkerReport, owner: str, now: datetime) -> WorkerRow:
    """The worker's row, with what it says of itself."""
    row = row or WorkerRow(
        name=report.worker, owner=owner, engine=report.engine, lease=0, first_at=now, reported_at=now
    )
    row.engine, row.version, row.base, row.url = report.engine, report.version, report.base, report.url
    row.slots, row.lease, row.reported_at = report.slots, report.lease, now
    row.seen = row.seen if report.seen is None else report.seen
    row.is_answering = report.residents is not None
    row.troubles = _troubles_text(report)
    tx.add(row)
    tx.flush()
    return row


def versions_of(tx: Transaction, named: Iterable[Named], identity: Identity) -> Mapping[Named, Known]:
    """The versions that are there and may be read."""
    wanted = set(named)
    digests = {digest.hex for _, digest in wanted}
    query = (
        select(AdapterRow, VersionRow)
        .join(VersionRow, col(VersionRow.adapter_id) == col(AdapterRow.id))
        .where(col(VersionRow.digest).in_(digests), col(AdapterRow.deleted_at).is_(None))
    )
    found: dict[Named, Known] = {}
    for adapter, version in tx.exec(query) if digests else ():
        named_so = (AdapterName.parse(adapter.name), Digest(version.digest))
        if named_so in wanted and identity.may_read(named_so[0], visibility_of(adapter.visibility)):
            assert version.id is not None
            found[named_so] = Known(version.id, version.adapter_id, cast(State, version.state))
    return found


def is_renewal(tx: Transaction, row: WorkerRow | None, report: WorkerReport) -> bool:
    """Whether a report says nothing but that the worker is still there and has what it had."""
    if row is None or report.dropped or row.troubles != _troubles_text(report):
        return False
    if report.residents is None:
        return not row.is_answering
    rows = tx.exec(
        select(ResidentRow, VersionRow.digest).join(VersionRow).where(ResidentRow.worker_id == row.id)
    )
    had = {(digest, one.served_as, one.condition) for one, digest in rows if one.condition != "unloaded"}
    return row.is_answering and had == {
        (one.digest.hex, one.served_as, one.condition) for one in report.residents
    }


def replace(
    tx: Transaction,
    worker: WorkerRow,
    residents: Sequence[Resident],
    found: Mapping[Named, Known],
    now: datetime,
) -> None:
    """Makes the worker's rows what it says it has; the others are unloaded from now on."""
    rows = _rows(tx, worker)
    said: set[_Key] = set()
    for one in residents:
        version = found.get((one.name, one.digest))
        if version is None:
            continue
        key = (version.version, one.served_as)
        said.add(key)
        row = rows.get(key) or ResidentRow(
            worker_id=worker.id or 0,
            version_id=version.version,
            served_as=one.served_as,
            condition="",
            since=now,
        )
        row.condition, row.since, row.last_used, row.reason = (
            one.condition,
            one.since,
            one.last_used,
            one.reason,
        )
        if one.condition in GONE:
            row.ended_at = row.ended_at or now
        else:
            row.ended_at = row.dropped_at = None
        tx.add(row)
    for key, row in rows.items():
        if key not in said and row.condition != "unloaded":
            row.condition, row.ended_at = "unloaded", row.ended_at or now
    tx.flush()
    tx.execute(
        delete(ResidentRow).where(
            col(ResidentRow.worker_id) == worker.id, col(ResidentRow.ended_at) < now - KEPT
        )
    )


def drop(
    tx: Transaction,
    worker: WorkerRow,
    dropped: Iterable[Dropped],
    found: Mapping[Named, Known],
    now: datetime,
) -> None:
    """Notes what the worker has dropped: of what it says it still has, nothing."""
    versions = {known.version for one in dropped if (known := found.get((one.name, one.digest)))}
    for (key, _), row in _rows(tx, worker).items():
        if key in versions and row.condition in GONE:
            row.dropped_at = row.dropped_at or now
    tx.flush()


def to_drop(tx: Transaction, worker: WorkerRow) -> tuple[Withdrawal, ...]:
    """The withdrawn versions that the worker has or had and has not dropped yet."""
    query = (
        select(AdapterRow.name, VersionRow.digest, VersionRow.number, VersionRow.state)
        .join(VersionRow, col(VersionRow.adapter_id) == col(AdapterRow.id))
        .join(ResidentRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .where(
            col(ResidentRow.worker_id) == worker.id,
            col(ResidentRow.dropped_at).is_(None),
            col(VersionRow.state).in_(WITHDRAWN),
        )
        .distinct()
        .order_by(AdapterRow.name, col(VersionRow.number))
    )
    return tuple(
        Withdrawal(
            name=AdapterName.parse(name), digest=Digest(digest), number=number, state=cast(State, state)
        )
        for name, digest, number, state in tx.exec(query)
    )


def forget(tx: Transaction, worker: WorkerRow) -> None:
    tx.execute(delete(ResidentRow).where(col(ResidentRow.worker_id) == worker.id))
    tx.delete(worker)
    tx.flush()


def resident_of(tx: Transaction, line: int) -> tuple[str, ...]:
    """The workers that have a version of an adapter, in name order."""
    query = (
        select(WorkerRow.name)
        .join(ResidentRow, col(ResidentRow.worker_id) == col(WorkerRow.id))
        .join(VersionRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .where(VersionRow.adapter_id == line, col(ResidentRow.condition).not_in(GONE))
    )
    return tuple(tx.exec(query.distinct().order_by(WorkerRow.name)))


def of_version(tx: Transaction, version: int, now: datetime) -> tuple[ResidentInfo, ...]:
    """Who has or had a version, in the order of the workers' names."""
    return tuple(_infos(tx, col(ResidentRow.version_id) == version, now))


def info(tx: Transaction, row: WorkerRow, sight: Sight, now: datetime) -> WorkerInfo:
    return _with_residents(tx, [row], sight, now)[0]


def page(
    tx: Transaction,
    owner: str,
    sight: Sight,
    cursor: str | None,
    limit: int,
    now: datetime,
) -> Page[WorkerInfo]:
    """Workers in name order, as far as `sight` goes."""
    query = select(WorkerRow).order_by(WorkerRow.name).limit(limit + 1)
    if cursor is not None:
        query = query.where(col(WorkerRow.name) > cursors.decode(cursor, _ABOUT))
    if (seen := is_seen(owner, sight)) is not None:
        query = query.where(seen)
    rows = tx.exec(query).all()
    infos = _with_residents(tx, rows[:limit], sight, now)
    following = cursors.encode(infos[-1].worker, _ABOUT) if len(rows) > limit else None
    return Page[WorkerInfo](items=tuple(infos), next=following)


def is_seen(owner: str, sight: Sight) -> ColumnElement[bool] | None:
    """Which workers may be seen: one's own, and those that have something one may read. None is all of them."""
    of_adapters = sight.of_adapters()
    if of_adapters is None:
        return None
    has = (
        select(ResidentRow.worker_id)
        .join(VersionRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .join(AdapterRow, col(VersionRow.adapter_id) == col(AdapterRow.id))
        .where(col(ResidentRow.worker_id) == col(WorkerRow.id), of_adapters)
    )
    return or_(col(WorkerRow.owner) == owner, exists(has))


def may_see(tx: Transaction, row: WorkerRow, owner: str, sight: Sight) -> bool:
    seen = is_seen(owner, sight)
    query = select(WorkerRow.id).where(WorkerRow.id == row.id)
    return seen is None or tx.exec(query.where(seen)).first() is not None


def _with_residents(
    tx: Transaction, rows: Sequence[WorkerRow], sight: Sight, now: datetime
) -> list[WorkerInfo]:
    has = col(ResidentRow.worker_id).in_([row.id for row in rows]) & (
        col(ResidentRow.condition) != "unloaded"
    )
    of_adapters = sight.of_adapters()
    residents = _infos(tx, has if of_adapters is None else has & of_adapters, now)
    return [
        WorkerInfo(
            worker=row.name,
            owner=row.owner,
            engine=row.engine,
            version=row.version,
            base=row.base,
            url=row.url,
            slots=row.slots,
            seen=row.seen,
            first_at=row.first_at,
            reported_at=row.reported_at,
            lease=row.lease,
            is_lost=_is_lost(row, now),
            is_answering=row.is_answering,
            residents=tuple(one for one in residents if one.worker == row.name),
            troubles=tuple(map(Trouble.model_validate, json.loads(row.troubles))),
        )
        for row in rows
    ]


def _infos(tx: Transaction, which: ColumnElement[bool], now: datetime) -> list[ResidentInfo]:
    query = (
        select(WorkerRow, ResidentRow, AdapterRow.name, VersionRow)
        .join(ResidentRow, col(ResidentRow.worker_id) == col(WorkerRow.id))
        .join(VersionRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .join(AdapterRow, col(VersionRow.adapter_id) == col(AdapterRow.id))
        .where(which)
        .order_by(WorkerRow.name, ResidentRow.served_as, col(VersionRow.number))
    )
    return [
        ResidentInfo(
            worker=worker.name,
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
            is_lost=_is_lost(worker, now),
        )
        for worker, resident, name, version in tx.exec(query)
    ]


def _is_lost(row: WorkerRow, now: datetime) -> bool:
    return now > row.reported_at + timedelta(seconds=row.lease)


def _rows(tx: Transaction, worker: WorkerRow) -> dict[_Key, ResidentRow]:
    rows = tx.exec(select(ResidentRow).where(ResidentRow.worker_id == worker.id))
    return {(row.version_id, row.served_as): row for row in rows}


def _troubles_text(report: WorkerReport) -> str:
    return json.dumps([one.model_dump() for one in report.troubles], ensure_ascii=False)
