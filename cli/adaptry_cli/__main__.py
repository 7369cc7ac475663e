"""The entry point of the `adaptry` program and of `python -m adaptry_cli`."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptry.adapters.inspection.process import InspectionProcess


def run() -> None:
    """Runs a command and ends the process.

    The process ends at once after its exit handlers. The interpreter would also tear down every imported
    module, which takes several milliseconds and has no effect. If other threads are running, the interpreter
    waits for them as usual.
    """
    try:
        inspection = _begin_inspection(sys.argv[1:])
        from adaptry_cli.main import main  # while the inspection process starts
    except KeyboardInterrupt:  # `main` handles later ones
        sys.stderr.write("interrupted: nothing was changed\n")
        sys.exit(130)

    try:
        main(obj=inspection)
    except SystemExit as end:
        if isinstance(end.code, int) and threading.active_count() == 1:
            atexit._run_exitfuncs()
            if _are_flushed():
                os._exit(end.code)
        raise


def _begin_inspection(words: Sequence[str]) -> InspectionProcess | None:
    """Starts the process that inspects weights, if the command seems to push a folder into a registry on this
    machine. The two start at the same time, since each takes equally long. If the process is not needed, it
    ends with the command.
    """
    is_remote = any("://" in word for word in (*words, os.environ.get("ADAPTRY_URL", "")))
    if is_remote or "push" not in words[:3]:
        return None
    folders = [Path(word) for word in words if word.startswith((".", "/", "~"))]
    with suppress(Exception):  # the push itself reports what is wrong
        sizes = [file.stat().st_size for each in folders for file in each.expanduser().glob("*.safetensors")]
        if sizes:
            from adaptry.adapters.inspection.process import InspectionProcess

            return InspectionProcess(max(sizes))
    return None


def _are_flushed() -> bool:
    """Flushes stdout and stderr. Returns False if that fails; the interpreter then reports it as it exits."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    run()
