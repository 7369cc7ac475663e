"""The process of a step: how it starts and ends, and what it reports to the runner."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from adaptry.core.identity import Identity
from adaptry.jobs.ipc import RegistryLocation, StepRequest
from adaptry.jobs.step_launcher import StepLauncher
from adaptry.jobs.step_process import OutputHandler, StepProcess
from adaptry.registry.job_types.records import JobFailure
from adaptry.storage.catalog.rights import encode_rights
from adaptry_api.testing import until

pytest.importorskip("psycopg")
NOBODY = "postgresql://adaptry@127.0.0.1:1/adaptry"  # no process listens on port 1


@pytest.fixture(scope="module")
def launcher() -> Iterator[StepLauncher]:
    with closing(StepLauncher()) as launcher:
        yield launcher


@pytest.fixture
def request_of_a_step(tmp_path: Path) -> StepRequest:
    """A step that fails, since its catalog cannot be reached."""
    return StepRequest(
        place=RegistryLocation(folder=str(tmp_path / "data"), catalog=NOBODY),
        job="job-1",
        step="start",
        attempt=1,
        kind="verify",
        task={},
        by="eve",
        rights=encode_rights(Identity.with_role("eve", "reader", ("eve",))),
        scratch=str(tmp_path),
        timeout=60,
    )


def test_a_runner_that_started_before_an_upgrade_can_still_start_steps(
    request_of_a_step: StepRequest,
) -> None:
    sent = request_of_a_step.model_dump()
    sent["turn"] = sent.pop("attempt")
    del sent["timeout"]
    assert StepRequest.model_validate(sent).attempt == 1


def test_storage_locations_are_shown_to_the_runner_but_not_to_the_submitter(
    launcher: StepLauncher, request_of_a_step: StepRequest
) -> None:
    told: list[str] = []
    asides: list[str] = []

    child = StepProcess.start(request_of_a_step, launcher)
    fault = child.wait(OutputHandler(told.append, asides.append, lambda *stage: None))

    assert isinstance(fault, JobFailure)
    assert fault.code == "unavailable"
    assert "127.0.0.1" not in " ".join([fault.message, *told])
    assert "127.0.0.1" in " ".join(asides)


def ended(child: StepProcess) -> str:
    """The exit reason of a process that ended without an error message."""
    assert child.wait(OutputHandler(print, print, lambda *stage: None)) is None
    return child.exit_reason


def test_a_process_waits_for_its_step_in_its_scratch_folder_and_ends_when_it_is_killed(
    launcher: StepLauncher, request_of_a_step: StepRequest, tmp_path: Path
) -> None:
    child = StepProcess(request_of_a_step, launcher.start(str(tmp_path)))

    child.cancel()

    assert "killed by SIGKILL" in ended(child)
    child.cancel()  # its process id may now belong to another process, which must get no signal


def test_a_process_ends_when_its_runner_does(launcher: StepLauncher, tmp_path: Path) -> None:
    process = launcher.start(str(tmp_path))
    assert process.stdin and process.stdout and process.stderr

    process.stdin.close()

    assert (process.stdout.read(), process.wait()) == ("", 1)
    process.stdout.close()
    process.stderr.close()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system has no pidfds")
def test_a_warm_process_is_single_threaded_and_is_replaced_if_it_dies(
    launcher: StepLauncher, request_of_a_step: StepRequest, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = StepProcess(request_of_a_step, launcher.start(request_of_a_step.scratch))
    warm = parent_of(waiting)
    assert threads_of(warm) == 1

    os.kill(warm, signal.SIGKILL)
    for _ in range(2):
        child = StepProcess.start(request_of_a_step, launcher)
        assert isinstance(child.wait(OutputHandler(print, print, lambda *stage: None)), JobFailure)
    waiting.cancel()

    assert ended(waiting) == "its process ended without an error message"
    assert "starting a new one" in caplog.text


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system has no pidfds")
def test_only_copies_for_steps_that_compute_with_torch_have_it_in_memory(
    launcher: StepLauncher, request_of_a_step: StepRequest
) -> None:
    pytest.importorskip("torch")
    merging = StepProcess(request_of_a_step, launcher.start(request_of_a_step.scratch))
    combining = StepProcess(request_of_a_step, launcher.start(request_of_a_step.scratch, uses_torch=True))

    try:
        assert "libtorch" not in Path(f"/proc/{merging.process.pid}/maps").read_text()
        assert "libtorch" in Path(f"/proc/{combining.process.pid}/maps").read_text()
        assert threads_of(parent_of(combining)) == 1  # NumPy's thread ended before the first copy was made
    finally:
        for child in (merging, combining):
            child.cancel()
            ended(child)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system has no pidfds")
def test_a_closing_launcher_does_not_wait_for_a_warm_process_that_still_starts(tmp_path: Path) -> None:
    launcher, others = StepLauncher(), fork_servers()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(launcher.start, str(tmp_path))
        (server,) = until(lambda: fork_servers() - others, bool)
        os.kill(server, signal.SIGSTOP)  # it never answers now, as if its imports took hours
        launcher.close()
        child = starting.result()
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        assert stream
        stream.close()


def fork_servers() -> set[int]:
    """The fork servers that this process started."""
    children = " ".join(one.read_text() for one in Path("/proc/self/task").glob("*/children")).split()
    return {
        int(child)
        for child in children
        if b"adaptry.jobs.fork_server" in Path(f"/proc/{child}/cmdline").read_bytes()
    }


def parent_of(child: StepProcess) -> int:
    return int(Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()[1])


def threads_of(process: int) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))
