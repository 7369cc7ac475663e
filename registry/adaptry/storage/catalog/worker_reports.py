"""The loaded adapters of each worker: rows that a report updates, and that prove recalls.

A version that a worker no longer reports stays for thirty days as `unloaded`, so that a later recall knows
its former workers; a withdrawn version that was not dropped stays as long as it is withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import delete
from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import WITHDRAWN, State
from adaptry.core.refs import AdapterName
from adaptry.registry.workers import ENDED, DroppedAdapter, ResidentReport, Withdrawal, WorkerReport
from adaptry.storage.catalog import workers
from adaptry.storage.catalog.adapter_rows import visibility_of
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, ResidentRow, VersionRow, WorkerRow
from adaptry.storage.catalog.workers import WorkerRecord

RETENTION = timedelta(days=30)
VersionKey = tuple[AdapterName, Digest]
_Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class ReportedVersion:
    """The catalog's values of a version that a report names."""

    version_key: int
    adapter_key: int
    state: State


def versions_of(
    tx: Transaction, named: Iterable[VersionKey], identity: Identity
) -> Mapping[VersionKey, ReportedVersion]:
    """The existing readable versions."""
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
    """Whether a report only confirms that the worker is alive with the same adapters."""
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
    reported: Mapping[VersionKey, ReportedVersion],
    now: datetime,
) -> None:
    """Updates the worker's rows to its report; versions that it does not report become unloaded."""
    rows = _rows(tx, worker)
    resident_keys: set[_Key] = set()
    for one in residents:
        version = reported.get((one.name, one.digest))
        if version is None:
            continue
        key = (version.version_key, one.served_as)
        resident_keys.add(key)
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
        if key not in resident_keys and row.condition != "unloaded":
            row.condition, row.ended_at = "unloaded", row.ended_at or now
    tx.flush()
    withdrawn = select(VersionRow.id).where(col(VersionRow.state).in_(WITHDRAWN))
    is_old = (col(ResidentRow.worker_id) == worker.key) & (col(ResidentRow.ended_at) < now - RETENTION)
    is_settled = col(ResidentRow.dropped_at).is_not(None) | col(ResidentRow.version_id).not_in(withdrawn)
    tx.execute(delete(ResidentRow).where(is_old, is_settled))


def _update_row(row: ResidentRow, report: ResidentReport, now: datetime) -> None:
    row.condition, row.since, row.last_used, row.reason = (
        report.condition,
        report.since,
        report.last_used,
        report.reason,
    )
    if report.condition in ENDED:
        row.ended_at = row.ended_at or now
    else:
        row.ended_at = row.dropped_at = None


def record_dropped(
    tx: Transaction,
    worker: WorkerRecord,
    dropped: Iterable[DroppedAdapter],
    reported: Mapping[VersionKey, ReportedVersion],
    now: datetime,
) -> None:
    """Records the versions that the worker has dropped, except those that it still reports."""
    versions = {known.version_key for one in dropped if (known := reported.get((one.name, one.digest)))}
    for (key, _), row in _rows(tx, worker).items():
        if key in versions and row.condition in ENDED:
            row.dropped_at = row.dropped_at or now
    tx.flush()


def withdrawals_for(tx: Transaction, worker: WorkerRecord) -> tuple[Withdrawal, ...]:
    """The withdrawn versions that the worker has or had and has not yet dropped."""
    held = select(ResidentRow.version_id).where(
        ResidentRow.worker_id == worker.key, col(ResidentRow.dropped_at).is_(None)
    )
    query = (
        select(AdapterRow.name, VersionRow)
        .join(VersionRow, col(VersionRow.adapter_id) == col(AdapterRow.id))
        .where(col(VersionRow.id).in_(held), col(VersionRow.state).in_(WITHDRAWN))
        .order_by(AdapterRow.name, col(VersionRow.number))
    )
    return tuple(
        Withdrawal(
            name=AdapterName.parse(name),
            digest=Digest(version.digest),
            number=version.number,
            state=cast(State, version.state),
            generation=version.state_generation,
        )
        for name, version in tx.exec(query)
    )


def may_serve(tx: Transaction, worker: WorkerRecord) -> bool:
    """Whether the worker has anything loaded that could serve a request."""
    query = select(ResidentRow.worker_id).where(
        ResidentRow.worker_id == worker.key, col(ResidentRow.condition).not_in(ENDED)
    )
    return tx.exec(query.limit(1)).first() is not None


def workers_with_adapter(tx: Transaction, adapter_key: int) -> tuple[str, ...]:
    """The workers that have a version of an adapter and are not declared gone, in name order."""
    query = (
        select(WorkerRow.name)
        .join(ResidentRow, col(ResidentRow.worker_id) == col(WorkerRow.id))
        .join(VersionRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .where(
            VersionRow.adapter_id == adapter_key,
            col(ResidentRow.condition).not_in(ENDED),
            col(WorkerRow.gone_at).is_(None),
        )
    )
    return tuple(tx.exec(query.distinct().order_by(WorkerRow.name)))


def _rows(tx: Transaction, worker: WorkerRecord) -> dict[_Key, ResidentRow]:
    rows = tx.exec(select(ResidentRow).where(ResidentRow.worker_id == worker.key))
    return {(row.version_id, row.served_as): row for row in rows}
