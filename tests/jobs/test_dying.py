"""Whatever dies, stops or is told twice, a job comes to its end once, and nothing of it is seen before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.errors import NotFound
from adaptry.failpoints import RUNNER, STEPS
from adaptry.integrity import verify
from adaptry.local import LocalRegistry
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.running import MERGE, Runner, is_stopped, over, registry_with_work, runner, wait_until

PLACES = (*RUNNER, *(f"parent:{name}" for name in STEPS))
QUICK = ("parent:merge.stored", "parent:merge.adopted")
"""What runs always: a piece stored and not told, and a base made and not told."""


@pytest.mark.parametrize("place", QUICK)
def test_a_runner_killed_at_a_step_is_taken_over(busy: LocalRegistry, data: Path, place: str) -> None:
    killed_and_taken_over(busy, data, place)


@pytest.mark.heavy
@pytest.mark.parametrize("time", range(10))
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_runner_killed_at_any_step_is_taken_over(
    kind: str, place: str, time: int, request: pytest.FixtureRequest, data: Path, tmp_path: Path
) -> None:
    """Twelve places, ten times each, on both kinds of database: 240 cases."""
    catalog = request.getfixturevalue("postgres").database() if kind == "postgresql" else None
    registry = registry_with_work(data, tmp_path / "scraps", catalog=catalog)
    killed_and_taken_over(registry, data, place)
    registry.close()


def killed_and_taken_over(registry: LocalRegistry, data: Path, place: str) -> None:
    job = registry.submit_job(MERGE)

    with runner(data, armed=place) as dying:
        assert dying.ended() < 0
    is_done = registry.job(job.id).state == "done"
    assert is_done == (place == "runner.after_finish")
    if place not in (
        "runner.before_finish",
        "runner.concluded",
        "parent:merge.adopted",
        "runner.after_finish",
    ):
        with pytest.raises(NotFound):
            registry.base("acme/merged")
    with runner(data, lease=0.5):
        assert over(registry, job.id).state == "done"
        wait_until(lambda: len(registry.runners()) == 1, "the dead runner to be forgotten")

    ended_once(registry, job.id)


def test_a_step_that_was_taken_over_changes_nothing_when_it_wakes_up(busy: LocalRegistry, data: Path) -> None:
    job = busy.submit_job(MERGE)
    with runner(data, armed="stop:merge.before_adoption") as sleeper:
        wait_until(lambda: is_stopped(sleeper.process.pid), "the last step to stand still")
        sleeper.freeze()
        with runner(data, lease=0.5):
            assert over(busy, job.id).state == "done"
        before = ended_once(busy, job.id)
        sleeper.thaw()
        wait_until(lambda: len(busy.runners()) == 2, "the sleeper to say that it lives")
        wait_until(lambda: not has_children(sleeper.process.pid), "its step to end")

    assert ended_once(busy, job.id) == before


@pytest.mark.heavy
def test_a_database_that_falls_and_comes_back_ends_no_job(
    postgres: PostgresServer, data: Path, tmp_path: Path
) -> None:
    registry = registry_with_work(data, tmp_path / "scraps", catalog=postgres.database())
    job = registry.submit_job(MERGE)
    with runner(data, lease=5.0):
        wait_until(lambda: registry.job(job.id).pieces > 0, "the job to be cut")
        postgres.crash()
        assert over(registry, job.id).state == "done"
    ended_once(registry, job.id)
    registry.close()


def test_a_cancelled_job_is_stopped_and_leaves_nothing(busy: LocalRegistry, data: Path) -> None:
    job = busy.submit_job(MERGE)
    with runner(data, armed="stop:merge.stored") as working:
        wait_until(lambda: is_stopped(working.process.pid), "a piece to stand still")
        assert busy.job(job.id).runners != ()

        busy.cancel_job(job.id)

        wait_until(lambda: not has_children(working.process.pid), "its process to be ended")
    assert busy.job(job.id).state == "cancelled"
    with pytest.raises(NotFound):
        busy.base("acme/merged")

    busy.retry_job(job.id)
    assert Runner(data, "--once").ended() == 0
    assert ended_once(busy, job.id)[0] == "done"


def test_a_process_that_dies_again_and_again_fails_its_job_and_no_other(
    busy: LocalRegistry, data: Path
) -> None:
    job = busy.submit_job(MERGE)

    assert Runner(data, "--once", armed="child.opened").ended() == 0

    failed = busy.job(job.id)
    assert failed.state == "failed"
    assert failed.fault is not None
    assert "killed by SIGKILL" in failed.fault.message


def test_a_step_that_takes_more_memory_than_there_is_fails_its_job(busy: LocalRegistry, data: Path) -> None:
    job = busy.submit_job(MERGE)

    assert Runner(data, "--once", "--memory", "64MiB").ended() == 0

    failed = busy.job(job.id)
    assert failed.state == "failed"
    assert failed.fault is not None
    assert "more than the 0.1 GB that this runner has" in failed.fault.message


def ended_once(registry: LocalRegistry, id: str) -> tuple[object, ...]:
    """What there is to see of a job that was done: one base, stored once, and rows and bytes that are sound."""
    job = registry.job(id)
    base = registry.base("acme/merged")
    assert base.is_stored
    assert job.result is not None
    assert job.result["base"] == str(base.id)
    assert verify(registry.catalog, registry.blobs) == ()
    stored = [event for event in all_events(registry) if event == "base.stored"]
    assert len(stored) == 2  # the base it was made from, and what was made
    return job.state, job.finished_at, base


def all_events(registry: LocalRegistry) -> Iterator[str]:
    from sqlmodel import select

    from adaptry.catalog.rows import EventRow

    with registry.catalog.read() as tx:
        yield from tx.exec(select(EventRow.kind)).all()


def has_children(pid: int) -> bool:
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
