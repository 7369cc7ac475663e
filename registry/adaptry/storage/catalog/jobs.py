"""Jobs in the catalog: submitted, listed, ended once. Their steps are in `job_steps`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy import func, update
from sqlmodel import col, select

from adaptry.core.identity import Identity
from adaptry.registry.job_types.records import (
    OPEN,
    JobFailure,
    JobInfo,
    JobNeeds,
    JobOrder,
    JobStage,
    JobState,
    LogLine,
)
from adaptry.registry.records import Page
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rights import current_rights, encode_rights
from adaptry.storage.catalog.rows import JobLineRow, JobRow, JobStepRow

_MAX_LINES = 5_000  # maximum lines of one job's log, so that a loop cannot fill the database
_MAX_LINE = 2_000
_DAY = 24 * 60  # minutes


class UnfinishedJob(NamedTuple):
    """The fields of an open job that its runners read repeatedly."""

    id: str
    attempts: int
    rank: int
    namespace: str
    needs: JobNeeds


def rank_of(priority: int, submitted_at: datetime) -> int:
    """The rank of an open job, in minutes, below 2³¹; the job with the smallest rank runs first. A day of
    waiting counts as much as one step of priority, so that no stream of urgent jobs makes another job wait
    forever.
    """
    return int(submitted_at.timestamp()) // 60 + priority * _DAY


def insert(
    tx: Transaction, id: str, order: JobOrder, namespace: str, identity: Identity, now: datetime
) -> JobInfo:
    row = JobRow(
        id=id,
        kind=order.kind,
        task=json.dumps(order.task, ensure_ascii=False),
        namespace=namespace,
        state="queued",
        needs=order.needs.model_dump_json(),
        priority=order.priority,
        by=identity.name,
        rights=encode_rights(identity),
        submitted_at=now,
    )
    tx.add(row)
    tx.flush()
    return _infos(tx, [row])[0]


def find(tx: Transaction, id: str) -> JobInfo | None:
    row = row_of(tx, id)
    return _infos(tx, [row])[0] if row else None


def row_of(tx: Transaction, id: str) -> JobRow | None:
    """The row of a job; only for this package."""
    return tx.exec(select(JobRow).where(JobRow.id == id)).first()


def submitter(tx: Transaction, id: str) -> Identity:
    """The identity whose rights the job has. The job must exist."""
    return submitter_of(tx, tx.exec(select(JobRow).where(JobRow.id == id)).one())


def submitter_of(tx: Transaction, row: JobRow) -> Identity:
    """Like `submitter`, for a row; only for this package."""
    return current_rights(tx, row.by, row.rights)


def page(
    tx: Transaction, identity: Identity, state: JobState | None, cursor: str | None, limit: int
) -> Page[JobInfo]:
    """The jobs of the namespaces in which `identity` has rights, newest first."""
    about = f"jobs {state}"
    before = cursors.decode_number(cursor, about)
    there = tx.exec(select(JobRow.namespace).distinct()).all()
    query = select(JobRow).where(
        col(JobRow.namespace).in_([name for name in there if identity.has_namespace(name)])
    )
    if state is not None:
        query = query.where(JobRow.state == state)
    if before is not None:
        query = query.where(col(JobRow.key) < before)
    rows = tx.exec(query.order_by(col(JobRow.key).desc()).limit(limit + 1)).all()
    following = cursors.encode(rows[limit - 1].key or 0, about) if len(rows) > limit else None
    return Page[JobInfo](items=_infos(tx, rows[:limit]), next=following)


def unfinished(tx: Transaction, maximum: int | None = None) -> tuple[UnfinishedJob, ...]:
    """Every unfinished job by rank, then by time of submission, or at least the first `maximum` of them of
    each namespace with each requirements. (`Any`: `select` knows the types of four columns at most.)
    """
    is_open = col(JobRow.state).in_(OPEN)
    row = JobRow
    columns: list[Any] = [
        row.priority,
        row.submitted_at,
        row.key,
        row.id,
        row.attempts,
        row.namespace,
        row.needs,
    ]
    query = sa.select(*columns).where(is_open)
    if maximum is not None:
        # Those of one priority have their order; SQL does not compute ranks.
        group = (col(row.namespace), col(row.needs), col(row.priority))
        place = func.row_number().over(partition_by=group, order_by=col(row.key)).label("place")
        places = sa.select(col(row.key), place).where(is_open).subquery()
        query = query.join(places, places.c.key == row.key).where(places.c.place <= maximum)
    found = [
        (rank_of(priority, submitted_at), key, id, attempts, namespace, needs)
        for priority, submitted_at, key, id, attempts, namespace, needs in tx.execute(query)
    ]
    return tuple(
        UnfinishedJob(id, attempts, rank, namespace, _needs(needs))
        for rank, _, id, attempts, namespace, needs in sorted(found)
    )


def has_unfinished(tx: Transaction) -> bool:
    return tx.exec(select(JobRow.key).where(col(JobRow.state).in_(OPEN)).limit(1)).first() is not None


@lru_cache(maxsize=256)
def _needs(text: str) -> JobNeeds:
    """Parses a job's requirements. Cached, since nearly all jobs have the same ones, and runners read those
    of all open jobs repeatedly.
    """
    return JobNeeds.model_validate_json(text)


def finish(
    tx: Transaction,
    id: str,
    state: JobState,
    now: datetime,
    *,
    result: object = None,
    error: JobFailure | None = None,
) -> bool:
    """Ends an open job; returns whether this call ended it."""
    values = {
        "state": state,
        "finished_at": now,
        "result": None if result is None else json.dumps(result, ensure_ascii=False),
        "error": error.model_dump_json() if error else None,
    }
    row = row_of(tx, id)
    if row is None or row.state not in OPEN:
        return False
    tx.execute(update(JobRow).where(col(JobRow.key) == row.key).values(**values))
    tx.expire(row)
    return True


def orders(tx: Transaction) -> Iterator[tuple[str, str, str, str]]:
    """The request of every job: its id, kind, task as JSON, and owner."""
    yield from tx.exec(select(JobRow.id, JobRow.kind, JobRow.task, JobRow.namespace).order_by(JobRow.id))


def reopen(tx: Transaction, id: str) -> None:
    """Queues a failed or cancelled job again; results of its finished steps stay."""
    row = tx.exec(select(JobRow).where(JobRow.id == id)).one()
    row.state, row.attempts = "queued", row.attempts + 1
    row.started_at = row.finished_at = row.error = row.result = None
    tx.add(row)
    tx.flush()


def due_for_removal(tx: Transaction, before: datetime, maximum: int) -> tuple[str, ...]:
    """Jobs that ended before that time, oldest first."""
    query = select(JobRow.id).where(col(JobRow.state).not_in(OPEN), col(JobRow.finished_at) < before)
    return tuple(tx.exec(query.order_by(col(JobRow.finished_at)).limit(maximum)).all())


def delete(tx: Transaction, ids: Iterable[str]) -> None:
    """Deletes these jobs with their steps and logs; a job that was reopened in the meantime stays."""
    query = select(JobRow.key).where(col(JobRow.id).in_(list(ids)), col(JobRow.state).not_in(OPEN))
    keys = list(tx.exec(query).all())
    tx.execute(sa.delete(JobLineRow).where(col(JobLineRow.job_key).in_(keys)))
    tx.execute(sa.delete(JobStepRow).where(col(JobStepRow.job_key).in_(keys)))
    tx.execute(sa.delete(JobRow).where(col(JobRow.key).in_(keys)))


def unknown(tx: Transaction, ids: Iterable[str]) -> set[str]:
    """Those of the given jobs that do not exist."""
    requested = set(ids)
    return requested - set(tx.exec(select(JobRow.id).where(col(JobRow.id).in_(requested))).all())


def append_log(tx: Transaction, id: str, step: str, texts: Iterable[str], now: datetime) -> None:
    """Adds lines to a job's log, up to its maximum."""
    row = row_of(tx, id)
    if row is None or row.key is None:
        return
    there = tx.exec(select(func.count()).where(col(JobLineRow.job_key) == row.key)).one()
    lines = list(texts)[: max(0, _MAX_LINES - there)]
    tx.add_all([JobLineRow(job_key=row.key, at=now, step=step, text=_clean(text)) for text in lines])


def log(tx: Transaction, id: str, cursor: str | None, limit: int) -> Page[LogLine]:
    """A job's log, oldest line first. The job must exist."""
    about = f"log {id}"
    after = cursors.decode_number(cursor, about)
    key = tx.exec(select(JobRow.key).where(JobRow.id == id)).one()
    query = select(JobLineRow).where(col(JobLineRow.job_key) == key)
    if after is not None:
        query = query.where(col(JobLineRow.key) > after)
    rows = tx.exec(query.order_by(col(JobLineRow.key)).limit(limit + 1)).all()
    following = cursors.encode(rows[limit - 1].key or 0, about) if len(rows) > limit else None
    lines = tuple(LogLine(at=row.at, step=row.step, text=row.text) for row in rows[:limit])
    return Page[LogLine](items=lines, next=following)


def _clean(text: str) -> str:
    return text.replace("\0", "\\0")[:_MAX_LINE]


def _infos(tx: Transaction, rows: Iterable[JobRow]) -> tuple[JobInfo, ...]:
    rows = list(rows)
    steps: dict[int, list[JobStepRow]] = {row.key or 0: [] for row in rows}
    for step in tx.exec(select(JobStepRow).where(col(JobStepRow.job_key).in_(list(steps)))):
        steps[step.job_key].append(step)
    return tuple(_info(row, steps[row.key or 0]) for row in rows)


def _info(row: JobRow, steps: list[JobStepRow]) -> JobInfo:
    parts = [step for step in steps if step.step not in ("start", "end")]
    return JobInfo(
        id=row.id,
        kind=row.kind,
        task=json.loads(row.task),
        namespace=row.namespace,
        state=cast(JobState, row.state),
        needs=JobNeeds.model_validate_json(row.needs),
        priority=row.priority,
        submitted_by=row.by,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        pieces=len(parts),
        stage=_stage(parts or steps),
        runners=_at_work(steps) if row.state == "running" else (),
        result=json.loads(row.result) if row.result else None,
        error=JobFailure.model_validate_json(row.error) if row.error else None,
    )


def _stage(steps: list[JobStepRow]) -> JobStage | None:
    """The progress of all pieces together, or of the single step."""
    total = sum(step.total for step in steps)
    if not total:
        return None
    done = sum(step.total if step.result else step.done for step in steps)
    return JobStage(
        activity=next((step.activity for step in steps if step.activity), "working"), done=done, total=total
    )


def _at_work(steps: list[JobStepRow]) -> tuple[str, ...]:
    return tuple(sorted({step.runner for step in steps if step.runner and not step.result}))
