"""Starting the process that does a step, listening to it, and ending it when it is not wanted any more."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from adaptry.core.errors import Unavailable
from adaptry.jobs.ipc import ChildMessage, StepRequest, StepResult
from adaptry.registry.job_types.records import JobFault

_PASSED_VARIABLES = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "VIRTUAL_ENV")
_PREFIXES = (
    "ADAPTRY_",
    "AWS_",
    "COVERAGE_",
    "CUDA_",
    "HIP_",
    "MKL_",
    "OMP_",
    "OPENBLAS_",
    "PG",
    "SSL_",
    "XDG_",
)


@dataclass(slots=True)
class OutputHandler:
    """Who is told what a child says, as it comes."""

    log: Callable[[str], None]
    log_internally: Callable[[str], None]
    report_progress: Callable[[str, int, int], None]


@dataclass(eq=False, slots=True)
class StepProcess:
    """A step in a process of its own. `died` says how the process ended, where it did without a word."""

    request: StepRequest
    process: subprocess.Popen[str]
    is_cancelled: bool = False
    is_over_memory: bool = False

    @classmethod
    def start(cls, paper: StepRequest, environ: Mapping[str, str] = os.environ) -> StepProcess:
        """Raises `Unavailable` where no process can be started."""
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "adaptry.jobs.subprocess_main"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=_environment(environ)
                | {"TMPDIR": paper.scratch},  # what it leaves there if it is killed goes with that
            )
        except OSError as error:
            raise Unavailable(f"cannot start the process for a step of a job: {error}") from error
        child = cls(paper, process)
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it is dead already, which `outcome` sees
            process.stdin.write(paper.model_dump_json() + "\n")
            process.stdin.flush()
        return child

    def wait(self, told: OutputHandler) -> StepResult | JobFault | None:
        """What it came to; None where it died first. Closes everything that was open for it."""
        process = self.process
        assert process.stdin and process.stdout and process.stderr
        story = threading.Thread(target=_forward_stderr, args=(process.stderr, told.log), daemon=True)
        story.start()
        came_to: StepResult | JobFault | None = None
        for text in process.stdout:
            line = _parse_message(text)
            if line is None:
                told.log(text.rstrip())
            elif line.what == "say":
                told.log(line.text)
            elif line.what == "aside":
                told.log_internally(line.text)
            elif line.what == "stage":
                told.report_progress(line.text, line.done, line.total)
            else:
                came_to = line.outcome or line.fault
        process.wait()
        story.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            _close_quietly(stream)
        return came_to

    def cancel(self) -> None:
        """It is not wanted any more: nothing that it does matters, so it is not asked."""
        self.is_cancelled = True
        self.process.kill()

    @property
    def resident_memory(self) -> int:
        """Bytes of memory that it has just now; 0 where the system does not tell, or it has none any more."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def exit_reason(self) -> str:
        code = self.process.returncode
        if code is not None and code < 0:
            return f"its process was killed by {signal.Signals(-code).name} (is there too little memory?)"
        return f"its process ended with {code} and said nothing"


def _forward_stderr(stream: IO[str], say: Callable[[str], None]) -> None:
    for text in stream:
        say(text.rstrip())


def _close_quietly(stream: IO[str]) -> None:
    with contextlib.suppress(OSError):  # what was not written has nobody to read it
        stream.close()


def _parse_message(text: str) -> ChildMessage | None:
    try:
        return ChildMessage.model_validate_json(text)
    except ValidationError:
        return None


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Where things are installed, and what opens the stores; none of the other secrets that a runner may hold."""
    return {
        name: value
        for name, value in own.items()
        if (name in _PASSED_VARIABLES or name.startswith(_PREFIXES)) and name != "ADAPTRY_TOKEN"
    }
