"""The steps of jobs: run in fenced attempts, so that each has one result, however many runners try.

Starting a step begins its next attempt. From then on the runner of an earlier attempt can change nothing:
every change is made in a transaction that first checks the attempt (`require_current`). A step's result is
stored, so that it does not run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from sqlmodel import col, select

from adaptry.core.errors import Conflict, PermissionDenied
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.job_types.records import OPEN, JobFailure
from adaptry.storage.catalog import tokens
from adaptry.storage.catalog.database import Catalog, Result, Transaction
from adaptry.storage.catalog.jobs import finish, row_of, submitter_of
from adaptry.storage.catalog.rows import JobStepRow


@dataclass(frozen=True, slots=True)
class StepAttempt:
    """An attempt at a step; with the step's stored `result` if it is done. (`Any`: JSON.)"""

    attempt: int
    result: dict[str, Any] | None


def begin_attempt(tx: Transaction, id: str, step: str, runner: str, now: datetime) -> StepAttempt | None:
    """Begins the next attempt at a step. None if the job has ended.

    The job fails here if its submitter was disabled or their token revoked.
    """
    job = row_of(tx, id)
    if job is None or job.key is None or job.state not in OPEN:
        return None
    if tokens.is_revoked(tx, submitter_of(tx, job)):
        message = f"{job.by}, who submitted this job, was disabled or their token revoked; submit it again"
        finish(tx, id, "failed", now, error=JobFailure(code=PermissionDenied.code, message=message))
        return None
    row = tx.get(JobStepRow, (job.key, step)) or JobStepRow(job_key=job.key, step=step)
    if row.result is not None:
        return StepAttempt(row.attempt, json.loads(row.result))
    row.attempt, row.runner, row.done = row.attempt + 1, runner, 0
    job.state = "running"
    job.started_at = job.started_at or now
    tx.add_all([row, job])
    tx.flush()
    return StepAttempt(row.attempt, None)


def require_current(tx: Transaction, id: str, step: str, attempt: int) -> None:
    """Raises `Conflict` unless the attempt is the latest, its job open, and its token not revoked."""
    job = row_of(tx, id)
    row = tx.get(JobStepRow, (job.key, step)) if job else None
    if job is None or job.state not in OPEN or row is None or row.attempt != attempt:
        raise Conflict(
            f"job {id} no longer belongs to this runner: it was cancelled, or another runner took"
            " over; nothing was changed"
        )
    if tokens.is_revoked(tx, submitter_of(tx, job)):
        raise Conflict(
            f"job {id} no longer has any rights: the token of {job.by} was revoked, or {job.by} was disabled;"
            " nothing was changed"
        )


def report(tx: Transaction, id: str, step: str, attempt: int, activity: str, done: int, total: int) -> None:
    """Stores a step's progress. Raises the errors of `require_current`."""
    require_current(tx, id, step, attempt)
    row = _step(tx, id, step)
    row.activity, row.done, row.total = activity, done, total
    tx.add(row)


def finish_step(
    tx: Transaction, id: str, step: str, attempt: int, result: Mapping[str, Any], pieces: Mapping[str, int]
) -> None:
    """Stores a step's result and adds the next steps, with sizes. Raises the errors of `require_current`."""
    require_current(tx, id, step, attempt)
    row = _step(tx, id, step)
    row.result = json.dumps(dict(result), ensure_ascii=False)
    tx.add(row)
    for name, size in pieces.items():
        tx.add(JobStepRow(job_key=row.job_key, step=name, total=size))


def results(tx: Transaction, id: str) -> dict[str, Any]:
    """The results of the finished steps. (`Any`: JSON.)"""
    job = row_of(tx, id)
    rows = tx.exec(select(JobStepRow).where(col(JobStepRow.job_key) == job.key)).all() if job else ()
    return {row.step: json.loads(row.result) for row in rows if row.result}


def reset_steps(tx: Transaction, id: str, names: Iterable[str]) -> None:
    """Resets these steps, so that they run again."""
    for name in names:
        row = _step(tx, id, name)
        row.result = None
        tx.add(row)


def _step(tx: Transaction, id: str, step: str) -> JobStepRow:
    job = row_of(tx, id)
    row = tx.get(JobStepRow, (job.key, step)) if job else None
    assert row is not None  # the lock is held
    return row


class FencedCatalog(Catalog):
    """A catalog whose writes belong to one step of a job; they raise `Conflict` unless the attempt is the
    latest.
    """

    def __init__(self, catalog: Catalog, look: Callable[[Transaction], None]) -> None:
        vars(self).update(vars(catalog))  # shares the open database and its resources
        self._behind = catalog  # it closes the database when it is no longer used
        self._look = look

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with super().write() as tx:
            self._look(tx)
            yield tx

    def write_each(self, changes: Sequence[Callable[[Transaction], Result]]) -> list[Result | Exception]:
        def fenced(change: Callable[[Transaction], Result], tx: Transaction) -> Result:
            self._look(tx)
            return change(tx)

        return super().write_each([partial(fenced, change) for change in changes])
