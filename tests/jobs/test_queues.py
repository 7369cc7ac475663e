"""A runner takes only steps whose device, tag and memory requirement it satisfies; jobs have an order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from adaptry.jobs.queues import can_run
from adaptry.registry.job_types.records import GIB, JobNeeds, JobOrder, RunnerInfo
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog import jobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext

EU = RunnerInfo(
    id="one",
    host="one",
    devices=("cuda",),
    tags=("eu",),
    concurrency=1,
    memory=32 * GIB,
    seen_at=datetime(2026, 1, 1, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("needs", "is_taken"),
    [
        (JobNeeds(), True),
        (JobNeeds(device="cpu"), True),
        (JobNeeds(device="cuda", tag="eu"), True),
        (JobNeeds(device="xpu"), False),
        (JobNeeds(tag="us"), False),
        (JobNeeds(memory=8 * GIB), True),
        (JobNeeds(memory=65 * GIB), False),
    ],
)
def test_a_runner_claims_only_steps_that_it_can_run(needs: JobNeeds, is_taken: bool) -> None:
    assert can_run(EU, needs) is is_taken


def test_urgent_jobs_go_first_but_a_job_that_has_waited_for_days_is_not_overtaken_forever() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs(), clock=lambda: now))

    def submit(priority: int) -> str:
        return registry.jobs.submit(JobOrder(kind="gc", task={}, priority=priority)).id

    patient, usual, urgent = submit(9), submit(5), submit(1)
    now += timedelta(days=7)
    after_a_week = submit(1)
    now += timedelta(days=2)
    after_nine_days = submit(1)
    with registry.catalog.read() as tx:
        order = [job.id for job in jobs.unfinished(tx)]
        first_of_each_priority = {job.id for job in jobs.unfinished(tx, 1)}
    registry.close()

    assert order == [urgent, usual, after_a_week, patient, after_nine_days]
    assert first_of_each_priority == {urgent, usual, patient}
