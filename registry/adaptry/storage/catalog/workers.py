"""Workers in the catalog: who reports, as it was heard of last."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlmodel import col, select

from adaptry.registry.workers import WorkerReport
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import ResidentRow, WorkerRow


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker's key, and what others are told of who it is. `owner` is whose token it reports with."""

    key: int
    name: str
    owner: str
    engine: str

    @property
    def label(self) -> str:
        """Tells it from every other worker: names are the owners' own."""
        return f"{self.owner}/{self.name}"


def find(tx: Transaction, name: str, owner: str) -> WorkerRecord | None:
    row = _row(tx, name, owner)
    return _record(row) if row else None


def named(tx: Transaction, name: str) -> tuple[WorkerRecord, ...]:
    """Every owner's worker of that name, in the order of the owners."""
    rows = tx.exec(select(WorkerRow).where(WorkerRow.name == name).order_by(WorkerRow.owner))
    return tuple(map(_record, rows))


def put(tx: Transaction, report: WorkerReport, owner: str, now: datetime) -> WorkerRecord:
    """The worker of that owner, as the report describes it; made if it is new."""
    row = _row(tx, report.worker, owner) or WorkerRow(
        name=report.worker, owner=owner, engine=report.engine, lease=0, first_at=now, reported_at=now
    )
    row.engine, row.version, row.base, row.url = report.engine, report.version, report.base, report.url
    row.slots, row.lease, row.reported_at = report.slots, report.lease, now
    row.seen = row.seen if report.seen is None else report.seen
    row.is_answering = report.residents is not None
    row.troubles = _troubles_text(report)
    tx.add(row)
    tx.flush()
    return _record(row)


def is_unchanged(tx: Transaction, worker: WorkerRecord, report: WorkerReport) -> bool:
    """Whether it answers as before, with the same troubles; what it has is another question."""
    row = tx.get_one(WorkerRow, worker.key)
    return row.is_answering == (report.residents is not None) and row.troubles == _troubles_text(report)


def forget(tx: Transaction, worker: WorkerRecord) -> None:
    tx.execute(delete(ResidentRow).where(col(ResidentRow.worker_id) == worker.key))
    tx.delete(tx.get_one(WorkerRow, worker.key))
    tx.flush()


def is_lost(row: WorkerRow, now: datetime) -> bool:
    """Whether it was not heard of in time; for this package."""
    return now > row.reported_at + timedelta(seconds=row.lease)


def label_of(row: WorkerRow) -> str:
    """As `WorkerRecord.label`; for this package."""
    return _record(row).label


def _row(tx: Transaction, name: str, owner: str) -> WorkerRow | None:
    return tx.exec(select(WorkerRow).where(WorkerRow.name == name, WorkerRow.owner == owner)).first()


def _record(row: WorkerRow) -> WorkerRecord:
    assert row.id is not None
    return WorkerRecord(row.id, row.name, row.owner, row.engine)


def _troubles_text(report: WorkerReport) -> str:
    return json.dumps([one.model_dump() for one in report.troubles], ensure_ascii=False)
