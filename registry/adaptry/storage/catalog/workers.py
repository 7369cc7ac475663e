"""Workers in the catalog, as last reported."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import col, select

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.workers import GoneDeclaration, WorkerReport
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import ResidentRow, WorkerRow


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker's key and public name. `owner` is the principal of its token."""

    key: int
    name: str
    owner: str
    engine: str

    @property
    def label(self) -> str:
        """A unique label: names are unique only per owner."""
        return f"{self.owner}/{self.name}"


def find(tx: Transaction, name: str, owner: str) -> WorkerRecord | None:
    row = _row(tx, name, owner)
    return _record(row) if row else None


def named(tx: Transaction, name: str) -> tuple[WorkerRecord, ...]:
    """The workers of that name of all owners, in the order of owners."""
    rows = tx.exec(select(WorkerRow).where(WorkerRow.name == name).order_by(WorkerRow.owner))
    return tuple(map(_record, rows))


def put(tx: Transaction, report: WorkerReport, owner: str, now: datetime) -> WorkerRecord:
    """Updates the owner's worker from a report; creates it if it is new."""
    row = _row(tx, report.worker, owner) or WorkerRow(
        name=report.worker, owner=owner, engine=report.engine, lease=0, first_at=now, reported_at=now
    )
    row.engine, row.url = report.engine, report.url
    if report.residents is not None or row.id is None:  # if the engine does not answer, its last data stay
        row.version, row.base = report.version, report.base
        row.base_id = report.base_id.hex if report.base_id else None
    row.slots, row.lease, row.reported_at = report.slots, report.lease, now
    row.last_event = row.last_event if report.last_event is None else report.last_event
    row.max_age = report.max_age
    row.gone_at = row.gone_by = row.gone_reason = None
    row.is_answering = report.residents is not None
    row.problems = _problems_text(report)
    tx.add(row)
    tx.flush()
    return _record(row)


def is_unchanged(tx: Transaction, worker: WorkerRecord, report: WorkerReport) -> bool:
    """Whether a report shows the same state of the engine and the same problems as before; the adapters are
    compared elsewhere.
    """
    row = tx.get_one(WorkerRow, worker.key)
    is_answering = report.residents is not None
    return row.gone_at is None and row.is_answering == is_answering and row.problems == _problems_text(report)


def declare_gone(tx: Transaction, worker: WorkerRecord, at: datetime, by: str, reason: str) -> None:
    row = tx.get_one(WorkerRow, worker.key)
    row.gone_at, row.gone_by, row.gone_reason = at, by, reason
    tx.flush()


def is_gone(tx: Transaction, worker: WorkerRecord) -> bool:
    """Whether the worker was declared gone and has not reported since."""
    return tx.get_one(WorkerRow, worker.key).gone_at is not None


def is_silent(tx: Transaction, worker: WorkerRecord, now: datetime) -> bool:
    """Whether the worker's last report has expired, or its engine does not answer."""
    row = tx.get_one(WorkerRow, worker.key)
    return is_lost(row, now) or not row.is_answering


def gone(row: WorkerRow) -> GoneDeclaration | None:
    """The declaration that the worker is gone; for this package."""
    if row.gone_at is None:
        return None
    return GoneDeclaration(at=row.gone_at, by=row.gone_by or "", reason=row.gone_reason or "")


def delete(tx: Transaction, worker: WorkerRecord) -> None:
    tx.execute(sa.delete(ResidentRow).where(col(ResidentRow.worker_id) == worker.key))
    tx.delete(tx.get_one(WorkerRow, worker.key))
    tx.flush()


def is_lost(row: WorkerRow, now: datetime) -> bool:
    """Whether its last report has expired; for this package."""
    return now > row.reported_at + timedelta(seconds=row.lease)


def label_of(row: WorkerRow) -> str:
    """Like `WorkerRecord.label`, for a row; only for this package."""
    return _record(row).label


def _row(tx: Transaction, name: str, owner: str) -> WorkerRow | None:
    return tx.exec(select(WorkerRow).where(WorkerRow.name == name, WorkerRow.owner == owner)).first()


def _record(row: WorkerRow) -> WorkerRecord:
    assert row.id is not None
    return WorkerRecord(row.id, row.name, row.owner, row.engine)


def _problems_text(report: WorkerReport) -> str:
    return json.dumps([one.model_dump() for one in report.problems], ensure_ascii=False)
