"""Jobs for fault injection, and the invariants that hold after any fault: the job ended once, with the same
result as without the fault.

The expected result is computed in the test's process, without runners, on another registry.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlmodel import select

from adaptry.core.errors import NotFound
from adaptry.core.refs import AdapterName
from adaptry.jobs.context import JobContext
from adaptry.jobs.dispatch import run_handler
from adaptry.registry.job_types.records import JobInfo, JobOrder
from adaptry.registry.job_types.tasks import parse_task
from adaptry.storage.catalog.jobs import row_of
from adaptry.storage.catalog.rows import EventRow, JobStepRow
from adaptry.storage.maintenance.integrity import verify

from .stages import Stage, a_registry

EFFECTS = {"merge": "base.stored", "combine": "version.pushed", "export": "version.pushed"}
"""The event that is recorded of what a job makes. (`verify` makes nothing.)"""


def order(kind: str, number: int) -> JobOrder:
    """A job whose result has its own name; a merge also has its own bytes."""
    to = f"acme/made-{number}"
    tasks: dict[str, dict[str, Any]] = {
        "merge": {
            "base": "org/tiny",
            "inputs": [f"acme/tone@1={1 + number / 1024}"],
            "to": to,
            "divide": number % 3 != 0,
        },
        "combine": {"inputs": ["acme/tone", "acme/voice=0.5"], "to": to, "method": "ties"},
        "export": {"source": "acme/rooted", "runtime": "sglang", "to": to},
        "verify": {},
    }
    return JobOrder(kind=kind, task=tasks[kind])


@cache
def _told(kind: str, number: int) -> dict[str, Any]:
    """The result of this job without a fault. (`Any`: JSON.)"""
    ordered = order(kind, number)
    task = parse_task(kind, ordered.task)
    with TemporaryDirectory() as folder:
        registry = a_registry(Path(folder, "data"), Path(folder, "scraps"))
        before: dict[str, Any] = {}
        desk = JobContext(registry, before, "cpu", Path(folder), {}, lambda *at: None, lambda text: None)
        first = run_handler(kind, task, "start", desk)
        before["start"] = first.result
        for piece in first.pieces:
            before[piece.name] = run_handler(kind, task, piece.name, desk).result
        came_to = run_handler(kind, task, "end", desk).result if first.pieces else first.result
        registry.close()
    return dict(json.loads(json.dumps(came_to)))  # as the catalog has it


class Scene:
    """A job that waits on a stage."""

    def __init__(self, stage: Stage, kind: str, number: int) -> None:
        self.stage = stage
        self.kind = kind
        self._number = number if kind == "merge" else 0  # all jobs of another kind have the same result
        self._to = f"acme/made-{number}"
        self._events = self._happened_so_far()
        self._finished: dict[str, int] = {}
        self.job = stage.registry.jobs.submit(order(kind, number)).id

    def is_over(self) -> bool:
        return not self.stage.registry.jobs.get(self.job).is_open

    def happens(self, is_seen: bool) -> None:
        """Injects the fault; notes completed steps, and checks that the result is complete or absent."""
        self._finished = {step: turn for step, (turn, is_done) in self._steps().items() if is_done}
        registry = self.stage.registry
        if not is_seen and self.kind == "merge":
            with pytest.raises(NotFound):
                registry.bases.get(self._to)
        elif not is_seen and self.kind in EFFECTS:
            with pytest.raises(NotFound):
                registry.versions.list(AdapterName.parse(self._to))
        assert verify(registry.catalog, registry.blobs) == ()

    def ended_once(self) -> tuple[JobInfo, Mapping[str, object]]:
        """Asserts that the job ended once, with the effect of an undisturbed job, and that completed steps
        were not repeated.
        """
        registry = self.stage.registry
        job, steps = registry.jobs.get(self.job), self._steps()
        assert (job.state, job.error) == ("done", None)
        assert job.result is not None
        assert _names_and_digests(job.result) == _names_and_digests(_told(self.kind, self._number))
        assert self._finished.items() <= {step: turn for step, (turn, _) in steps.items()}.items()
        made = self._happened_so_far() - self._events
        effect = EFFECTS.get(self.kind)
        assert {kind: count for kind, count in made.items() if kind in EFFECTS.values()} == (
            {effect: 1} if effect else {}
        )
        if self.kind == "merge":
            base = registry.bases.get(self._to)
            assert (base.is_stored, str(base.id)) == (True, job.result["base"])
        elif effect:
            (version,) = registry.versions.list(AdapterName.parse(self._to)).items
            assert str(version.digest) == job.result["digest"]
        assert verify(registry.catalog, registry.blobs) == ()
        return job, steps

    def _steps(self) -> dict[str, tuple[int, bool]]:
        """Each step's turn, and whether it is done."""
        with self.stage.registry.catalog.read() as tx:
            job = row_of(tx, self.job)
            assert job is not None
            rows = tx.exec(select(JobStepRow).where(JobStepRow.job_key == job.key)).all()
        return {row.step: (row.attempt, row.result is not None) for row in rows}

    def _happened_so_far(self) -> Counter[str]:
        with self.stage.registry.catalog.read() as tx:
            return Counter(tx.exec(select(EventRow.kind)).all())


def _names_and_digests(result: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a job's result that are equal in every run: without its name and without the order."""
    return {name: value for name, value in result.items() if name not in ("is_new", "name", "version")}
