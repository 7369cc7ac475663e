"""Old ended jobs are deleted from the catalog and from the job engine; jobs and schedules of a revoked token
end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from sqlmodel import col, update

from adaptry.core.errors import Conflict, Invalid, NotFound
from adaptry.core.identity import LOCAL
from adaptry.registry.job_types.records import JobOrder
from adaptry.storage import tokens
from adaptry.storage.catalog import job_steps, jobs, schedules
from adaptry.storage.catalog.rows import JobRow
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.runners import is_stopped, start_runner, wait_for_job, wait_until
from adaptry_cli.main import main

NOW = datetime.now(UTC)
VERIFY = JobOrder(kind="verify", task={})


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest) -> str | None:
    """The location of rows; None for the folder's own file."""
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.database()


def test_a_job_that_ended_long_ago_is_forgotten_by_the_next_runner(
    tmp_path: Path, catalog: str | None
) -> None:
    data = tmp_path / "data"
    registry = open_local(data, catalog=catalog)
    options = ("--keep", "2d", *(("--catalog", catalog) if catalog else ()))
    old, young = registry.jobs.submit(VERIFY).id, registry.jobs.submit(VERIFY).id
    with start_runner(data, *options):
        wait_until(lambda: is_over(data, catalog, old) and is_over(data, catalog, young), "both to be over")
    long_ago = NOW - timedelta(days=3)
    with registry.catalog.write() as tx:
        tx.execute(update(JobRow).where(col(JobRow.id) == old).values(finished_at=long_ago))
        jobs.append_log(tx, old, "start", ["a line"], NOW)
    aged = f"completed_at = {int(long_ago.timestamp() * 1000)}"
    engine(data, catalog, f"UPDATE {{}} SET {aged} WHERE workflow_uuid LIKE '{old}.%'")

    with start_runner(data, *options):
        wait_until(lambda: not states(data, catalog, old), "the old one to be forgotten")

    assert [job.id for job in registry.jobs.list().items] == [young]
    with pytest.raises(NotFound):
        registry.jobs.get(old)
    assert is_over(data, catalog, young)
    registry.close()


def engine(data: Path, catalog: str | None, statement: str) -> list[str]:
    """The rows that the engine's database returns for a statement, in which `{}` stands for its table of
    workflows.
    """
    if catalog is None:
        with closing(sqlite3.connect(data / "jobs.sqlite", timeout=30)) as database, database:
            return [first for (first, *_) in database.execute(statement.format("workflow_status")).fetchall()]
    with psycopg.connect(catalog) as database:
        cursor = database.execute(statement.format("dbos.workflow_status").encode())
        return [first for (first, *_) in cursor.fetchall()] if cursor.description else []


def states(data: Path, catalog: str | None, job: str) -> list[str]:
    """The states of a job's workflows in the engine."""
    return engine(data, catalog, f"SELECT status FROM {{}} WHERE workflow_uuid LIKE '{job}.%'")


def is_over(data: Path, catalog: str | None, job: str) -> bool:
    try:
        return set(states(data, catalog, job)) == {"SUCCESS"}
    except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):
        return False  # it has not begun


def test_jobs_are_kept_long_enough_for_schedules_to_look_back(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["work", "--data", str(tmp_path), "--keep", "1d"])
    assert told.exit_code == 2
    assert "at least 2d" in told.output


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    return open_local(tmp_path / "data")


def with_token(registry: LocalRegistry) -> tuple[LocalRegistry, Callable[[], None]]:
    """The registry with a new token of the administrator ops, and a function that revokes the token."""
    ops = tokens.identify(registry.catalog, tokens.create_token(registry.catalog, "ops", "admin", ("*",)))
    assert ops.token is not None
    return registry.on_behalf_of(ops), partial(tokens.revoke_token, registry.catalog, ops.token)


def test_a_job_of_a_revoked_token_is_not_begun_and_has_the_reason(registry: LocalRegistry) -> None:
    theirs, revoke = with_token(registry)
    job = theirs.jobs.submit(VERIFY).id
    revoke()
    with registry.catalog.write() as tx:
        assert job_steps.begin_attempt(tx, job, "start", "r", NOW) is None
    seen = registry.jobs.get(job)
    assert seen.state == "failed"
    assert seen.error
    assert "ops" in seen.error.message
    assert "revoked" in seen.error.message


def test_a_running_step_changes_nothing_once_its_token_is_revoked(registry: LocalRegistry) -> None:
    theirs, revoke = with_token(registry)
    job = theirs.jobs.submit(VERIFY).id
    with registry.catalog.write() as tx:
        begun = job_steps.begin_attempt(tx, job, "start", "r", NOW)
        assert begun
    with registry.catalog.read() as tx:
        job_steps.require_current(tx, job, "start", begun.attempt)
    revoke()
    with registry.catalog.read() as tx, pytest.raises(Conflict, match="revoked"):
        job_steps.require_current(tx, job, "start", begun.attempt)


def test_a_running_job_ends_when_its_token_is_revoked(registry: LocalRegistry, tmp_path: Path) -> None:
    theirs, revoke = with_token(registry)
    job = theirs.jobs.submit(VERIFY).id
    with start_runner(tmp_path / "data", armed="stop:child.opened") as started:
        wait_until(lambda: is_stopped(started.process.pid), "a step that stands still")
        revoke()
        seen = wait_for_job(registry, job)
    assert (seen.state, seen.error and seen.error.code) == ("failed", "denied")


def test_a_job_of_a_revoked_token_continues_if_another_has_the_same_rights(registry: LocalRegistry) -> None:
    theirs, revoke = with_token(registry)
    job = theirs.jobs.submit(VERIFY).id
    with_token(registry)
    revoke()
    with registry.catalog.write() as tx:
        assert job_steps.begin_attempt(tx, job, "start", "r", NOW)


def test_jobs_lose_the_rights_that_their_user_loses(registry: LocalRegistry) -> None:
    theirs, _ = with_token(registry)
    tokens.create_token(registry.catalog, "root", "admin", ("*",))
    job, other = (theirs.jobs.submit(VERIFY).id for _ in range(2))
    (grant,) = registry.grants.list(principal="ops").items

    registry.grants.remove(grant.id)
    with registry.catalog.write() as tx:
        assert job_steps.begin_attempt(tx, job, "start", "r", NOW)
        assert not jobs.submitter(tx, job).may_administer
    registry.principals.set_disabled("ops", True)
    with registry.catalog.write() as tx:
        assert job_steps.begin_attempt(tx, other, "start", "r", NOW) is None
    fault = registry.jobs.get(other).error
    assert fault
    assert "disabled" in fault.message


def test_the_user_of_the_folder_has_no_token_to_lose(registry: LocalRegistry) -> None:
    with pytest.raises(Invalid, match="reserved"):
        tokens.create_token(registry.catalog, LOCAL.name, LOCAL.role, LOCAL.namespaces)
    job = registry.jobs.submit(VERIFY).id
    with registry.catalog.write() as tx:
        assert job_steps.begin_attempt(tx, job, "start", "r", NOW)


def test_the_schedule_of_a_revoked_token_is_suspended_until_another_exists(registry: LocalRegistry) -> None:
    theirs, revoke = with_token(registry)
    theirs.jobs.schedule("nightly", "* * * * *", VERIFY)
    revoke()
    later = datetime.now(UTC) + timedelta(minutes=5)
    with registry.catalog.write() as tx:
        schedules.submit_due(tx, later)
    assert registry.jobs.list().items == ()
    assert [each.is_held for each in registry.jobs.schedules()] == [True]
    with_token(registry)
    with registry.catalog.write() as tx:
        schedules.submit_due(tx, later)
    assert [job.submitted_by for job in registry.jobs.list().items] == ["ops"]
    assert [each.is_held for each in registry.jobs.schedules()] == [False]
