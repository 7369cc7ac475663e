"""Schedules in the catalog: orders given again and again, each time once, whoever looks at the clock."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from sqlmodel import select

from adaptry.core.identity import Identity
from adaptry.registry.job_types.cron import Cron
from adaptry.registry.job_types.records import JobOrder, ScheduleInfo
from adaptry.storage.catalog import jobs, tokens
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.encoding import encode_list
from adaptry.storage.catalog.rows import JobScheduleRow

_MADE_UP_FOR = timedelta(days=1)
"""A time that passed while nobody was there is made up for so long, the last of them, once."""


def put(
    tx: Transaction, name: str, cron: Cron, order: JobOrder, namespace: str, identity: Identity, now: datetime
) -> ScheduleInfo:
    """From now on; one of that name in that namespace is replaced."""
    while now in _moments(tx, name, namespace):  # which jobs' ids tell schedules of one name apart by
        now += timedelta(microseconds=1)
    row = JobScheduleRow(
        name=name,
        cron=cron.text,
        ordered=order.model_dump_json(),
        namespace=namespace,
        by=identity.name,
        by_role=identity.role,
        by_namespaces=encode_list(identity.namespaces),
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
    """Gives the orders that are due and were not given yet; a job's id says which time it is of."""
    for row in tx.exec(select(JobScheduleRow).order_by(JobScheduleRow.name)).all():
        if tokens.is_revoked(tx, row.submitter):
            continue
        due = Cron.parse(row.cron).last(max(row.created_at, now - _MADE_UP_FOR), now)
        if due is None:
            continue
        id = f"job-{hashlib.sha256(f'{row.name} {row.created_at} {due}'.encode()).hexdigest()[:16]}"
        if jobs.row_of(tx, id) is None:
            jobs.insert(tx, id, JobOrder.model_validate_json(row.ordered), row.namespace, row.submitter, now)


def _moments(tx: Transaction, name: str, namespace: str) -> set[datetime]:
    """When the schedules of that name in other namespaces were made."""
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
        is_held=tokens.is_revoked(tx, row.submitter),
    )
