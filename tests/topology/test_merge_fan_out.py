"""A merge that several runners share has the same bytes as on one machine."""

from __future__ import annotations

from pathlib import Path

from .merging import SHARDS, assert_as_on_one_machine, ended, ordered
from .processes import TopologyProcesses


def test_a_merge_shared_by_runners_equals_that_of_one_machine(
    running: TopologyProcesses, tmp_path: Path
) -> None:
    registry = running.registry()
    job = ended(registry, ordered(registry, tmp_path, "shared"))
    assert (job.state, job.pieces, job.error) == ("done", SHARDS, None)
    assert_as_on_one_machine(registry, tmp_path, "shared")
