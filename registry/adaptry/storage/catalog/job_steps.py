"""The steps of jobs: begun in attempts and fenced, so that each has one result, however many runners try.

Each begin of a step is its next attempt. From then on the runner of an earlier attempt can change nothing:
every change is made in a transaction that checks the attempt first (`require_current`). A step's result is
stored, so that it is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import col, select

from adaptry.core.errors import Conflict, PermissionDenied
from adaptry.registry.job_types.records import OPEN, JobFault
from adaptry.storage.catalog import tokens
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.jobs import finish, row_of
from adaptry.storage.catalog.rows import JobStepRow


@dataclass(frozen=True, slots=True)
class StepAttempt:
    """An attempt at a step; with the step's stored `result`, if it is done already. (`Any`: JSON.)"""

    attempt: int
    result: dict[str, Any] | None


def begin_attempt(tx: Transaction, id: str, step: str, runner: str, now: datetime) -> StepAttempt | None:
    """The next attempt at a step. None if the job has ended, so that there is nothing to do.

    A job whose submitter's token was revoked fails here.
    """
    job = row_of(tx, id)
    if job is None or job.key is None or job.state not in OPEN:
        return None
    if tokens.is_revoked(tx, job.submitter):
        said = f"the token {job.by}, whose rights this job has, was revoked; submit it with another"
        finish(tx, id, "failed", now, fault=JobFault(code=PermissionDenied.code, message=said))
        return None
    row = tx.get(JobStepRow, (job.key, step)) or JobStepRow(job_key=job.key, step=step)
    if row.result is not None:
        return StepAttempt(row.turn, json.loads(row.result))
    row.turn, row.runner, row.done = row.turn + 1, runner, 0
    job.state = "running"
    job.started_at = job.started_at or now
    tx.add_all([row, job])
    tx.flush()
    return StepAttempt(row.turn, None)


def require_current(tx: Transaction, id: str, step: str, attempt: int) -> None:
    """Raises `Conflict` unless the attempt is the latest, its job open, and its token not revoked."""
    job = row_of(tx, id)
    row = tx.get(JobStepRow, (job.key, step)) if job else None
    if job is None or job.state not in OPEN or row is None or row.turn != attempt:
        raise Conflict(
            f"job {id} is no longer this runner's: it was cancelled, or taken over by another;"
            " nothing was changed"
        )
    if tokens.is_revoked(tx, job.submitter):
        raise Conflict(
            f"job {id} has no rights any more: the token {job.by} was revoked; nothing was changed"
        )


def report(tx: Transaction, id: str, step: str, attempt: int, what: str, done: int, total: int) -> None:
    """Stores a step's progress. Raises as `require_current`."""
    require_current(tx, id, step, attempt)
    row = _step(tx, id, step)
    row.what, row.done, row.total = what, done, total
    tx.add(row)


def finish_step(
    tx: Transaction, id: str, step: str, attempt: int, result: Mapping[str, Any], pieces: Mapping[str, int]
) -> None:
    """Stores a step's result and adds the steps that follow, with sizes. Raises as `require_current`."""
    require_current(tx, id, step, attempt)
    row = _step(tx, id, step)
    row.result = json.dumps(dict(result), ensure_ascii=False)
    tx.add(row)
    for name, size in pieces.items():
        tx.add(JobStepRow(job_key=row.job_key, step=name, total=size))


def results(tx: Transaction, id: str) -> dict[str, Any]:
    """The results of the steps that have ended. (`Any`: JSON.)"""
    job = row_of(tx, id)
    rows = tx.exec(select(JobStepRow).where(col(JobStepRow.job_key) == job.key)).all() if job else ()
    return {row.step: json.loads(row.result) for row in rows if row.result}


def reset_steps(tx: Transaction, id: str, names: Iterable[str]) -> None:
    """These steps are to be done again."""
    for name in names:
        row = _step(tx, id, name)
        row.result = None
        tx.add(row)


def _step(tx: Transaction, id: str, step: str) -> JobStepRow:
    job = row_of(tx, id)
    row = tx.get(JobStepRow, (job.key, step)) if job else None
    assert row is not None  # it is held
    return row


class FencedCatalog(Catalog):
    """A catalog that changes for one step of a job, in its latest attempt, else raises `Conflict`."""

    def __init__(self, catalog: Catalog, look: Callable[[Transaction], None]) -> None:
        vars(self).update(vars(catalog))  # the same database and all that hangs on it, opened once
        self._behind = catalog  # which lets go of it when nobody has it any more
        self._look = look

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with super().write() as tx:
            self._look(tx)
            yield tx
