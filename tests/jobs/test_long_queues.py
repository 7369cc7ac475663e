"""A long queue of jobs costs a runner little, and delays neither urgent jobs nor those of other
namespaces.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import push
from adaptry.registry.job_types.records import JobNeeds, JobOrder
from adaptry.storage.local import LocalRegistry
from adaptry.testing.runners import RunnerProcess, wait_until
from adaptry.testing.samples import tiny_lora

LOOK = {"dry_run": True}
MANY = 120  # more than are passed to the engine in one round


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


def test_jobs_of_other_namespaces_run_before_hundreds_of_earlier_jobs_of_one_namespace(
    busy: LocalRegistry, data: Path
) -> None:
    push(busy, open_dir(tiny_lora(data / "other", hidden=32, seed=2)), "rival/tone")
    waiting = [busy.jobs.submit(_statistics("acme/tone@1")).id for _ in range(MANY)]
    other = busy.jobs.submit(_statistics("rival/tone@1")).id
    runner = RunnerProcess(data)
    try:
        wait_until(lambda: busy.jobs.get(other).state == "done", "the job of the other namespace")
    finally:
        runner.kill()

    # The order is checked, not the number left: after the first job, which measures the version, the others
    # take no time.
    end = busy.jobs.get(other).finished_at
    ends = [busy.jobs.get(job).finished_at for job in waiting]
    assert end is not None
    assert len([one for one in ends if one is not None and one < end]) < MANY // 2


def test_jobs_that_no_runner_can_run_delay_no_others_of_their_namespace(
    busy: LocalRegistry, data: Path
) -> None:
    for _ in range(MANY):
        busy.jobs.submit(JobOrder(kind="gc", task=LOOK, needs=JobNeeds(tag="nowhere")))
    job = busy.jobs.submit(JobOrder(kind="gc", task=LOOK)).id
    runner = RunnerProcess(data)
    try:
        wait_until(lambda: busy.jobs.get(job).state == "done", "the job that the runner can run")
    finally:
        runner.kill()


def _statistics(version: str) -> JobOrder:
    return JobOrder(kind="weight-statistics", task={"versions": [version]})
