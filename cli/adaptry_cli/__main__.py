"""The `adaptry` program, also as `python -m adaptry_cli`."""

from __future__ import annotations

import atexit
import os
import sys
import threading

from adaptry_cli.main import main


def run() -> None:
    """Runs a command and ends the process.

    After its exit handlers, the process ends at once: taking apart everything that was imported has no effect
    and takes several milliseconds. If there are other threads, the interpreter waits for them as usual.
    """
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int) and threading.active_count() == 1:
            atexit._run_exitfuncs()
            if _are_flushed():
                os._exit(end.code)
        raise


def _are_flushed() -> bool:
    """Whether everything was written; if not, the interpreter reports it."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    run()
