"""Events that end a job or a step before it is finished, and failures of the database during a job."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from adaptry.core.errors import NotFound
from adaptry.registry.job_types.records import JobNeeds, JobOrder
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.runners import (
    MERGE,
    WHOLE_MERGE,
    RunnerProcess,
    has_steps,
    is_stopped,
    make_merge_registry,
    start_runner,
    wait_for_job,
    wait_until,
)


@pytest.mark.heavy
def test_a_database_crash_ends_no_job(postgres: PostgresServer, data: Path, tmp_path: Path) -> None:
    registry = make_merge_registry(data, tmp_path / "scraps", catalog=postgres.database())
    job = registry.jobs.submit(MERGE)
    with start_runner(data, lease=5.0):
        wait_until(lambda: registry.jobs.get(job.id).pieces > 0, "the job to be cut")
        postgres.crash()
        assert wait_for_job(registry, job.id).state == "done"
    ended_once(registry, job.id)
    registry.close()


@pytest.mark.parametrize("order", [MERGE, WHOLE_MERGE], ids=["divided", "in one piece"])
def test_a_cancelled_job_is_stopped_and_leaves_nothing(
    busy: LocalRegistry, data: Path, order: JobOrder
) -> None:
    job = busy.jobs.submit(order)
    with start_runner(data, armed="stop:merge.stored") as working:
        wait_until(lambda: is_stopped(working.process.pid), "a piece to stand still")
        assert busy.jobs.get(job.id).runners != ()

        busy.jobs.cancel(job.id)

        wait_until(lambda: not has_steps(working.process.pid), "its process to be ended")
    assert busy.jobs.get(job.id).state == "cancelled"
    with pytest.raises(NotFound):
        busy.bases.get("acme/merged")

    busy.jobs.retry(job.id)
    assert RunnerProcess(data, "--once").wait() == 0
    assert ended_once(busy, job.id)[0] == "done"


def test_a_process_that_dies_again_and_again_fails_its_job_and_no_other(
    busy: LocalRegistry, data: Path
) -> None:
    job = busy.jobs.submit(MERGE)

    assert RunnerProcess(data, "--once", armed="child.opened").wait() == 0

    failed = busy.jobs.get(job.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert "killed by SIGKILL" in failed.error.message


def test_a_runner_whose_database_a_newer_program_upgraded_ends_and_leaves_its_job_to_a_new_one(
    busy: LocalRegistry, data: Path
) -> None:
    older = RunnerProcess(data)
    wait_until(lambda: len(busy.jobs.runners()) == 1, "the runner to register")
    schema = _replace_schema(data, "9999")
    job = busy.jobs.submit(MERGE)

    with pytest.raises(AssertionError, match="start this runner again: the database was upgraded"):
        older.wait()

    assert busy.jobs.get(job.id).is_open
    _replace_schema(data, schema)
    assert RunnerProcess(data, "--once").wait() == 0
    assert ended_once(busy, job.id)[0] == "done"


def _replace_schema(data: Path, schema: str) -> str:
    with closing(sqlite3.connect(data / "catalog.sqlite")) as database, database:
        (was,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = ?", (schema,))
    return str(was)


def test_a_step_that_never_ends_fails_its_job_after_the_jobs_limit(busy: LocalRegistry, data: Path) -> None:
    job = busy.jobs.submit(MERGE.model_copy(update={"needs": JobNeeds(timeout=1)}))

    assert RunnerProcess(data, "--once", armed="stop:merge.stored").wait() == 0

    failed = busy.jobs.get(job.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert "took longer than the job's limit of 0:00:01" in failed.error.message
    assert "--timeout" in failed.error.message


def test_a_step_that_takes_more_memory_than_there_is_fails_its_job(busy: LocalRegistry, data: Path) -> None:
    job = busy.jobs.submit(MERGE)

    # It stops before its end, so that the runner measures it.
    assert RunnerProcess(data, "--once", "--memory", "64MiB", armed="stop:merge.stored").wait() == 0

    failed = busy.jobs.get(job.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert "more than the 0.1 GB that this runner has" in failed.error.message


def test_files_of_a_killed_runner_are_removed_at_the_next_start(
    busy: LocalRegistry, data: Path, tmp_path: Path
) -> None:
    job = busy.jobs.submit(MERGE)
    there = tmp_path / "temporary"
    there.mkdir()
    environ = {"TMPDIR": str(there)}
    with start_runner(data, armed="stop:merge.stored", environ=environ) as killed:
        wait_until(lambda: is_stopped(killed.process.pid), "a piece to stand still")
    (left,) = there.iterdir()
    with start_runner(data, armed="stop:merge.stored", environ=environ) as asleep:
        wait_until(lambda: is_stopped(asleep.process.pid), "another to take it over and stand still")
        asleep.freeze()
        (others,) = there.iterdir()
        assert others != left

        assert RunnerProcess(data, "--once", environ=environ).wait() == 0

        assert list(there.iterdir()) == [others]
    assert busy.jobs.get(job.id).state == "done"


def ended_once(registry: LocalRegistry, id: str) -> tuple[object, ...]:
    """Asserts that the job is done: one base, stored once, and valid rows and bytes."""
    job = registry.jobs.get(id)
    base = registry.bases.get("acme/merged")
    assert base.is_stored
    assert job.result is not None
    assert job.result["base"] == str(base.id)
    assert verify(registry.catalog, registry.blobs) == ()
    stored = [event for event in all_events(registry) if event == "base.stored"]
    assert len(stored) == 2  # the base from which it was made, and the result
    return job.state, job.finished_at, base


def all_events(registry: LocalRegistry) -> Iterator[str]:
    from sqlmodel import select

    from adaptry.storage.catalog.rows import EventRow

    with registry.catalog.read() as tx:
        yield from tx.exec(select(EventRow.kind)).all()
