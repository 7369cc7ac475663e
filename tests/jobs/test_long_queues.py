"""A long queue of jobs costs a runner little, and urgent jobs are not delayed by it."""

from __future__ import annotations

from pathlib import Path

from adaptry.registry.job_types.records import JobOrder
from adaptry.storage.local import LocalRegistry
from adaptry.testing.runners import RunnerProcess, wait_until

LOOK = {"dry_run": True}
MANY = 120  # more than are handed to the engine in one round


def test_an_urgent_job_is_done_before_many_that_wait_and_none_of_them_has_a_thread(
    busy: LocalRegistry, data: Path
) -> None:
    waiting = [busy.jobs.submit(JobOrder(kind="gc", task=LOOK, priority=9)).id for _ in range(MANY)]
    runner = RunnerProcess(data)
    try:
        wait_until(lambda: busy.jobs.get(waiting[0]).state != "queued", "the first of many jobs to begin")
        urgent = busy.jobs.submit(JobOrder(kind="gc", task=LOOK, priority=1)).id
        wait_until(lambda: busy.jobs.get(urgent).state == "done", "the urgent job")
        threads = len(list(Path(f"/proc/{runner.process.pid}/task").iterdir()))
    finally:
        runner.kill()

    assert threads < MANY // 2
    assert len(busy.jobs.list("queued", limit=200).items) > MANY // 2
