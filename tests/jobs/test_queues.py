"""A runner takes only steps whose device, tag and memory requirement it satisfies."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adaptry.jobs.queues import can_run
from adaptry.registry.job_types.records import GIB, JobNeeds, RunnerInfo

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
