"""Runs a program that is killed when its caller ends for any reason: `python -m … PROGRAM [ARGUMENT…]`.

Standard input is a pipe that the caller holds open. When it closes, because the caller was killed for
example, the program and the processes that it started are killed. Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_ROOT = str(Path(__file__).resolve().parents[3])  # the folder that contains `adaptry`
_START = """\
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""
_NOT_STARTED = 127


def run_with_parent_watch(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], output: IO[bytes]
) -> int:
    """Runs a program in `folder`, and returns its exit status; a negative one is the signal that ended it.

    Its standard input is empty, and `output` receives all that it prints. Raises `OSError` if this Python
    cannot be started; a program that cannot be started has the exit status 127.
    """
    watched = [sys.executable, "-P", "-c", _START, _ROOT, __name__, *command]
    with subprocess.Popen(
        watched,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # it does not die with the caller's group, whose end it has to notice
    ) as process:
        assert process.stdin is not None
        try:
            return process.wait()
        finally:  # an interrupted caller closes the pipe, and waits until the program is gone
            process.stdin.close()
            process.wait()


def main(command: Sequence[str]) -> int:
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.stderr.write(f"{command[0]} could not be started: {error.strerror}\n")
        sys.stderr.flush()
        return _NOT_STARTED
    threading.Thread(target=_end_at_eof, daemon=True).start()
    return program.wait()


def _end_at_eof() -> None:
    while os.read(0, 1 << 12):
        continue
    os.killpg(0, signal.SIGKILL)  # this process, and all that it started


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
