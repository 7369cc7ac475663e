"""A program that is run for a caller ends when the caller ends, for whatever reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adaptry.core.processes.parent_watch import run_with_parent_watch

CALLER = """
import sys
from pathlib import Path
from adaptry.core.processes.parent_watch import run_with_parent_watch
program = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(600)"
run_with_parent_watch([sys.executable, "-c", program], Path("."), {}, sys.stdout.buffer)
"""


def run(folder: Path, *words: str) -> tuple[int, str]:
    with (folder / "output").open("wb") as output:
        code = run_with_parent_watch(words, folder, {"GREETING": "hello"}, output)
    return code, (folder / "output").read_text()


@pytest.mark.parametrize("code", [0, 3])
def test_a_program_has_its_exit_status_output_folder_and_environment(tmp_path: Path, code: int) -> None:
    program = (
        f"import os, sys; print(os.environ['GREETING'], os.getcwd(), sys.stdin.read()); sys.exit({code})"
    )
    assert run(tmp_path, sys.executable, "-c", program) == (code, f"hello {tmp_path} \n")


def test_a_program_ended_by_a_signal_reports_the_signal(tmp_path: Path) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    assert run(tmp_path, sys.executable, "-c", program)[0] == -signal.SIGTERM


def test_a_missing_program_gives_an_exit_status(tmp_path: Path) -> None:
    code, output = run(tmp_path, str(tmp_path / "nothing"))
    assert (code, "nothing could not be started" in output) == (127, True)


@pytest.mark.parametrize("is_group_killed", [False, True])
def test_the_program_ends_when_its_caller_is_killed(is_group_killed: bool) -> None:
    """When the program ends, the pipe that it writes to is closed, which this test notices."""
    command = [sys.executable, "-c", CALLER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as caller:
        assert caller.stdout is not None
        assert int(caller.stdout.readline()) > 0
        (os.killpg if is_group_killed else os.kill)(caller.pid, signal.SIGKILL)
        assert caller.stdout.read() == b""
