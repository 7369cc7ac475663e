"""Jobs that ended long ago go, from the catalog and from the engine; and a revoked token's jobs and schedules end with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from sqlmodel import col, update

from adaptry import tokens
from adaptry.catalog import jobs, schedules, steps
from adaptry.catalog.rows import JobRow
from adaptry.errors import Conflict, NotFound
from adaptry.identity import LOCAL, Identity
from adaptry.jobs.records import JobOrder
from adaptry.local import LocalRegistry
from adaptry.opening import open_local
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.running import Runner
from adaptry_cli.main import main

NOW = datetime.now(UTC)
VERIFY = JobOrder(kind="verify", task={})
OPS = Identity("ops", "admin", ("*",))


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest) -> str | None:
    """Where rows are; None for the folder's own file."""
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.database()


def test_a_job_that_ended_long_ago_is_forgotten_by_the_next_runner(
    tmp_path: Path, catalog: str | None
) -> None:
    data = tmp_path / "data"
    registry = open_local(data, catalog=catalog)
    options = ("--once", "--keep", "2d", *(("--catalog", catalog) if catalog else ()))
    old, young = registry.submit_job(VERIFY).id, registry.submit_job(VERIFY).id
    assert Runner(data, *options).ended() == 0
    assert remembered(data, catalog, old) > 0
    with registry.catalog.write() as tx:
        long_ago = NOW - timedelta(days=3)
        tx.execute(update(JobRow).where(col(JobRow.id) == old).values(finished_at=long_ago))
        jobs.say(tx, old, "start", ["a line"], NOW)

    again = registry.submit_job(VERIFY).id
    assert Runner(data, *options).ended() == 0

    assert [job.id for job in registry.jobs().items] == [again, young]
    with pytest.raises(NotFound):
        registry.job(old)
    assert [remembered(data, catalog, id) > 0 for id in (old, young, again)] == [False, True, True]
    registry.close()


def remembered(data: Path, catalog: str | None, job: str) -> int:
    """How many workflows the engine knows of a job."""
    if catalog is None:
        with sqlite3.connect(data / "jobs.sqlite") as there:
            rows = there.execute("select workflow_uuid from workflow_status").fetchall()
        there.close()
    else:
        with psycopg.connect(catalog.replace("+psycopg", "")) as database:
            rows = database.execute("select workflow_uuid from dbos.workflow_status").fetchall()
    return sum(id.startswith(f"{job}.") for (id,) in rows)


def test_jobs_are_kept_long_enough_for_schedules_to_look_back(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["work", "--data", str(tmp_path), "--keep", "1d"])
    assert told.exit_code == 2
    assert "2d at least" in told.output


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    return open_local(tmp_path / "data")


def revoked(registry: LocalRegistry) -> Callable[[], None]:
    """Makes a token of `OPS`; what revokes it."""
    tokens.create_token(registry.catalog, OPS.name, OPS.role, OPS.namespaces)
    id = tokens.list_tokens(registry.catalog)[-1].id
    return lambda: tokens.revoke_token(registry.catalog, id)


def test_a_job_of_a_revoked_token_is_not_begun_and_says_why(registry: LocalRegistry) -> None:
    revoke = revoked(registry)
    job = registry.on_behalf_of(OPS).submit_job(VERIFY).id
    revoke()
    with registry.catalog.write() as tx:
        assert steps.begin(tx, job, "start", "r", NOW) is None
    seen = registry.job(job)
    assert seen.state == "failed"
    assert seen.fault
    assert "ops" in seen.fault.message
    assert "revoked" in seen.fault.message


def test_a_step_at_work_changes_nothing_once_its_token_is_revoked(registry: LocalRegistry) -> None:
    revoke = revoked(registry)
    job = registry.on_behalf_of(OPS).submit_job(VERIFY).id
    with registry.catalog.write() as tx:
        begun = steps.begin(tx, job, "start", "r", NOW)
        assert begun
    with registry.catalog.read() as tx:
        steps.hold(tx, job, "start", begun.turn)
    revoke()
    with registry.catalog.read() as tx, pytest.raises(Conflict, match="revoked"):
        steps.hold(tx, job, "start", begun.turn)


def test_a_token_of_the_same_rights_carries_on_for_one_that_was_revoked(registry: LocalRegistry) -> None:
    revoke = revoked(registry)
    job = registry.on_behalf_of(OPS).submit_job(VERIFY).id
    revoked(registry)
    revoke()
    with registry.catalog.write() as tx:
        assert steps.begin(tx, job, "start", "r", NOW)


def test_who_works_in_the_folder_has_no_token_to_lose(registry: LocalRegistry) -> None:
    tokens.create_token(registry.catalog, LOCAL.name, LOCAL.role, LOCAL.namespaces)
    tokens.revoke_token(registry.catalog, tokens.list_tokens(registry.catalog)[-1].id)
    job = registry.submit_job(VERIFY).id
    with registry.catalog.write() as tx:
        assert steps.begin(tx, job, "start", "r", NOW)


def test_the_schedule_of_a_revoked_token_is_held_until_there_is_another(registry: LocalRegistry) -> None:
    revoke = revoked(registry)
    registry.on_behalf_of(OPS).schedule_job("nightly", "* * * * *", VERIFY)
    revoke()
    later = datetime.now(UTC) + timedelta(minutes=5)
    with registry.catalog.write() as tx:
        schedules.submit_due(tx, later)
    assert registry.jobs().items == ()
    assert [each.is_held for each in registry.schedules()] == [True]
    revoked(registry)
    with registry.catalog.write() as tx:
        schedules.submit_due(tx, later)
    assert [job.submitted_by for job in registry.jobs().items] == ["ops"]
    assert [each.is_held for each in registry.schedules()] == [False]
