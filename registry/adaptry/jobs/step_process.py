"""The process that runs a step: sends it the step, reads its messages, and kills it if it is cancelled."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from adaptry.core.lazy_dataclass import dataclass
from adaptry.jobs.dispatch import TORCH_KINDS
from adaptry.jobs.ipc import ChildMessage, StepRequest, StepResult
from adaptry.jobs.step_launcher import LaunchedProcess, StepLauncher
from adaptry.registry.job_types.records import JobFailure


@dataclass(slots=True)
class OutputHandler:
    """Receives a step process's messages as they arrive."""

    log: Callable[[str], None]
    log_internally: Callable[[str], None]
    report_progress: Callable[[str, int, int], None]


@dataclass(eq=False, slots=True)
class StepProcess:
    """A step in a separate process. `exit_reason` describes an end without a result."""

    request: StepRequest
    process: LaunchedProcess
    is_cancelled: bool = False
    is_over_memory: bool = False
    is_overdue: bool = False
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, request: StepRequest, launcher: StepLauncher) -> StepProcess:
        """Starts the process. Raises `Unavailable` if no process can be started."""
        process = launcher.start(request.scratch, request.kind in TORCH_KINDS)
        child = cls(request, process)
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # the process is dead already; `wait` notices
            process.stdin.write(request.model_dump_json() + "\n")
            process.stdin.flush()
        return child

    def wait(self, output: OutputHandler) -> StepResult | JobFailure | None:
        """Waits for the process and closes its pipes. Returns its result or fault; None if it ended without
        one."""
        process = self.process
        assert process.stdin and process.stdout and process.stderr
        stderr = threading.Thread(target=_forward_stderr, args=(process.stderr, output.log), daemon=True)
        stderr.start()
        outcome: StepResult | JobFailure | None = None
        for text in process.stdout:
            message = _parse_message(text)
            if message is None:
                output.log(text.rstrip())
            elif message.what == "say":
                output.log(message.text)
            elif message.what == "aside":
                output.log_internally(message.text)
            elif message.what == "stage":
                output.report_progress(message.text, message.done, message.total)
            else:
                outcome = message.outcome or message.fault
        process.wait()
        stderr.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            _close_quietly(stream)
        return outcome

    def set_processors(self, count: int) -> None:
        """Sends the number of processors that the step may use from now on."""
        stdin = self.process.stdin
        with contextlib.suppress(OSError, ValueError):  # the process has ended, or its input is closed
            if stdin is not None:
                stdin.write(f"{count}\n")
                stdin.flush()

    def cancel(self) -> None:
        """Kills the process at once; it cannot change the registry afterwards."""
        self.is_cancelled = True
        self.process.kill()

    @property
    def resident_memory(self) -> int:
        """Resident memory in bytes; 0 if the process has ended or the system does not report it."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def exit_reason(self) -> str:
        code = self.process.returncode
        if code is not None and code < 0:
            return (
                f"its process was killed by {signal.Signals(-code).name} (did the machine run out of memory?)"
            )
        ended = "its process ended" if code is None else f"its process ended with exit code {code}"
        return f"{ended} without an error message"


def _forward_stderr(stream: IO[str], log: Callable[[str], None]) -> None:
    for text in stream:
        log(text.rstrip())


def _close_quietly(stream: IO[str]) -> None:
    with contextlib.suppress(OSError):  # no process reads the unsent input
        stream.close()


def _parse_message(text: str) -> ChildMessage | None:
    try:
        return ChildMessage.model_validate_json(text)
    except ValidationError:
        return None
