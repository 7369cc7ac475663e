"""What the process of a step says, and to whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.jobs.ipc import RegistryLocation, StepRequest
from adaptry.jobs.step_process import OutputHandler, StepProcess
from adaptry.registry.job_types.records import JobFault

pytest.importorskip("psycopg")
NOBODY = "postgresql://adaptry@127.0.0.1:1/adaptry"  # nobody listens at port 1


def test_where_the_registry_keeps_its_things_is_said_to_the_runner_and_not_to_who_asked(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    asides: list[str] = []
    paper = StepRequest(
        place=RegistryLocation(folder=str(tmp_path / "data"), catalog=NOBODY),
        job="job-1",
        step="start",
        turn=1,
        kind="verify",
        task={},
        by="eve",
        role="reader",
        namespaces=("eve",),
        scratch=str(tmp_path),
    )

    fault = StepProcess.start(paper).wait(OutputHandler(told.append, asides.append, lambda *stage: None))

    assert isinstance(fault, JobFault)
    assert fault.code == "unavailable"
    assert "127.0.0.1" not in " ".join([fault.message, *told])
    assert "127.0.0.1" in " ".join(asides)
