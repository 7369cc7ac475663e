"""What each worker has, in the catalog: rows that a report brings up to date, and that a recall is proved by.

What a worker no longer reports stays for thirty days as `unloaded`, so that it is known who had a version
that is recalled later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import delete
from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.core.identity import Identity
from adaptry.core.lifecycle import WITHDRAWN, State
from adaptry.core.refs import AdapterName
from adaptry.registry.workers import ENDED, DroppedAdapter, ResidentReport, Withdrawal, WorkerReport
from adaptry.storage.catalog import workers
from adaptry.storage.catalog.adapters import visibility_of
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, ResidentRow, VersionRow, WorkerRow
from adaptry.storage.catalog.workers import WorkerRecord

KEPT = timedelta(days=30)
VersionKey = tuple[AdapterName, Digest]
_Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class ReportedVersion:
    """A version that a report names, as the catalog knows it."""

    version_key: int
    adapter_key: int
    state: State


def versions_of(
    tx: Transaction, named: Iterable[VersionKey], identity: Identity
) -> Mapping[VersionKey, ReportedVersion]:
    """The versions that are there and may be read."""
    wanted = set(named)
    digests = {digest.hex for _, digest in wanted}
    query = (
        select(AdapterRow, VersionRow)
        .join(VersionRow, col(VersionRow.adapter_id) == col(AdapterRow.id))
        .where(col(VersionRow.digest).in_(digests), col(AdapterRow.deleted_at).is_(None))
    )
    found: dict[VersionKey, ReportedVersion] = {}
    for adapter, version in tx.exec(query) if digests else ():
        named_so = (AdapterName.parse(adapter.name), Digest(version.digest))
        if named_so in wanted and identity.may_read(named_so[0], visibility_of(adapter.visibility)):
            assert version.id is not None
            found[named_so] = ReportedVersion(version.id, version.adapter_id, cast(State, version.state))
    return found


def is_renewal(tx: Transaction, worker: WorkerRecord | None, report: WorkerReport) -> bool:
    """Whether a report says nothing but that the worker is still there and has what it had."""
    if worker is None or report.dropped or not workers.is_unchanged(tx, worker, report):
        return False
    if report.residents is None:
        return True
    rows = tx.exec(
        select(ResidentRow, VersionRow.digest).join(VersionRow).where(ResidentRow.worker_id == worker.key)
    )
    had = {(digest, one.served_as, one.condition) for one, digest in rows if one.condition != "unloaded"}
    return had == {(one.digest.hex, one.served_as, one.condition) for one in report.residents}


def replace(
    tx: Transaction,
    worker: WorkerRecord,
    residents: Sequence[ResidentReport],
    found: Mapping[VersionKey, ReportedVersion],
    now: datetime,
) -> None:
    """Makes the worker's rows what it says it has; the others are unloaded from now on."""
    rows = _rows(tx, worker)
    said: set[_Key] = set()
    for one in residents:
        version = found.get((one.name, one.digest))
        if version is None:
            continue
        key = (version.version_key, one.served_as)
        said.add(key)
        row = rows.get(key) or ResidentRow(
            worker_id=worker.key,
            version_id=version.version_key,
            served_as=one.served_as,
            condition="",
            since=now,
        )
        _update_row(row, one, now)
        tx.add(row)
    for key, row in rows.items():
        if key not in said and row.condition != "unloaded":
            row.condition, row.ended_at = "unloaded", row.ended_at or now
    tx.flush()
    is_old = (col(ResidentRow.worker_id) == worker.key) & (col(ResidentRow.ended_at) < now - KEPT)
    tx.execute(delete(ResidentRow).where(is_old))


def _update_row(row: ResidentRow, said: ResidentReport, now: datetime) -> None:
    row.condition, row.since, row.last_used, row.reason = (
        said.condition,
        said.since,
        said.last_used,
        said.reason,
    )
    if said.condition in ENDED:
        row.ended_at = row.ended_at or now
    else:
        row.ended_at = row.dropped_at = None


def drop(
    tx: Transaction,
    worker: WorkerRecord,
    dropped: Iterable[DroppedAdapter],
    found: Mapping[VersionKey, ReportedVersion],
    now: datetime,
) -> None:
    """Notes what the worker has dropped: of what it says it still has, nothing."""
    versions = {known.version_key for one in dropped if (known := found.get((one.name, one.digest)))}
    for (key, _), row in _rows(tx, worker).items():
        if key in versions and row.condition in ENDED:
            row.dropped_at = row.dropped_at or now
    tx.flush()


def withdrawals_for(tx: Transaction, worker: WorkerRecord) -> tuple[Withdrawal, ...]:
    """The withdrawn versions that the worker has or had and has not dropped yet."""
    query = (
        select(AdapterRow.name, VersionRow.digest, VersionRow.number, VersionRow.state)
        .join(VersionRow, col(VersionRow.adapter_id) == col(AdapterRow.id))
        .join(ResidentRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .where(
            col(ResidentRow.worker_id) == worker.key,
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


def workers_with_adapter(tx: Transaction, adapter_key: int) -> tuple[str, ...]:
    """The workers that have a version of an adapter, in name order."""
    query = (
        select(WorkerRow.name)
        .join(ResidentRow, col(ResidentRow.worker_id) == col(WorkerRow.id))
        .join(VersionRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .where(VersionRow.adapter_id == adapter_key, col(ResidentRow.condition).not_in(ENDED))
    )
    return tuple(tx.exec(query.distinct().order_by(WorkerRow.name)))


def _rows(tx: Transaction, worker: WorkerRecord) -> dict[_Key, ResidentRow]:
    rows = tx.exec(select(ResidentRow).where(ResidentRow.worker_id == worker.key))
    return {(row.version_id, row.served_as): row for row in rows}
