"""What a runner takes: steps whose device, tag and size of memory it has."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adaptry.jobs.queues import takes
from adaptry.registry.jobs_values.records import GIB, Needs, RunnerInfo

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
        (Needs(), True),
        (Needs(device="cpu"), True),
        (Needs(device="cuda", tag="eu"), True),
        (Needs(device="xpu"), False),
        (Needs(tag="us"), False),
        (Needs(memory=8 * GIB), True),
        (Needs(memory=65 * GIB), False),
    ],
)
def test_a_runner_takes_what_it_has_the_means_for(needs: Needs, is_taken: bool) -> None:
    assert takes(EU, needs) is is_taken
