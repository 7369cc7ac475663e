"""Schedules in the catalog: jobs submitted at set times, once each time, however many processes check."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from sqlmodel import select

from adaptry.core.identity import Identity
from adaptry.registry.job_types.cron import Cron
from adaptry.registry.job_types.records import JobOrder, ScheduleInfo
from adaptry.storage.catalog import jobs, tokens
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rights import current_rights, encode_rights
from adaptry.storage.catalog.rows import JobScheduleRow

_MADE_UP_FOR = timedelta(days=1)
"""Maximum delay of a missed time: if no process was running, the last missed time within it is made up
once.
"""


def put(
    tx: Transaction, name: str, cron: Cron, order: JobOrder, namespace: str, identity: Identity, now: datetime
) -> ScheduleInfo:
    """Stores a schedule, replacing one of that name in the namespace."""
    while now in _moments(tx, name, namespace):  # part of jobs' ids, to distinguish schedules of one name
        now += timedelta(microseconds=1)
    row = JobScheduleRow(
        name=name,
        cron=cron.text,
        ordered=order.model_dump_json(),
        namespace=namespace,
        by=identity.name,
        rights=encode_rights(identity),
        created_at=now,
    )
    return _info(tx, tx.merge(row))


def find(tx: Transaction, name: str, namespace: str) -> ScheduleInfo | None:
    row = tx.get(JobScheduleRow, (namespace, name))
    return _info(tx, row) if row else None


def named(tx: Transaction, name: str) -> tuple[ScheduleInfo, ...]:
    """The schedules of that name in every namespace, in the order of the namespaces."""
    query = select(JobScheduleRow).where(JobScheduleRow.name == name).order_by(JobScheduleRow.namespace)
    return tuple(_info(tx, row) for row in tx.exec(query).all())


def every(tx: Transaction) -> tuple[ScheduleInfo, ...]:
    query = select(JobScheduleRow).order_by(JobScheduleRow.name, JobScheduleRow.namespace)
    return tuple(_info(tx, row) for row in tx.exec(query).all())


def remove(tx: Transaction, name: str, namespace: str) -> None:
    tx.delete(tx.get_one(JobScheduleRow, (namespace, name)))


def submit_due(tx: Transaction, now: datetime) -> None:
    """Submits the due jobs that were not submitted yet; a job's id depends on its scheduled time."""
    for row in tx.exec(select(JobScheduleRow).order_by(JobScheduleRow.name)).all():
        submitter = current_rights(tx, row.by, row.rights)
        if tokens.is_revoked(tx, submitter):
            continue
        due = Cron.parse(row.cron).last(max(row.created_at, now - _MADE_UP_FOR), now)
        if due is None:
            continue
        id = f"job-{hashlib.sha256(f'{row.name} {row.created_at} {due}'.encode()).hexdigest()[:16]}"
        if jobs.row_of(tx, id) is None:
            jobs.insert(tx, id, JobOrder.model_validate_json(row.ordered), row.namespace, submitter, now)


def _moments(tx: Transaction, name: str, namespace: str) -> set[datetime]:
    """The creation times of schedules of that name in other namespaces."""
    query = select(JobScheduleRow.created_at).where(
        JobScheduleRow.name == name, JobScheduleRow.namespace != namespace
    )
    return set(tx.exec(query))


def _info(tx: Transaction, row: JobScheduleRow) -> ScheduleInfo:
    return ScheduleInfo(
        name=row.name,
        cron=row.cron,
        order=JobOrder.model_validate_json(row.ordered),
        namespace=row.namespace,
        by=row.by,
        created_at=row.created_at,
        is_held=tokens.is_revoked(tx, current_rights(tx, row.by, row.rights)),
    )
