"""Starts the process that measures weights. Imports little, so a push can start it before anything else."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

from adaptry.core.processes.bounded import NICENESS, ProcessFailed, ProcessLimits, start_bounded

LARGE = 4 << 20
"""Size in bytes from which importing numpy (0.1 s) pays off."""

_MEMORY = 1 << 30
_LIFETIME = 1e7  # seconds of processor time for all requests of a process; each request has its own limit
_MAX_REPLY = 16 << 20


class InspectionProcess:
    """A process that measures weights, and the socket for its requests (see `protocol`).

    If `expected` is at least `LARGE` bytes, the process imports numpy before it reads a request. It ends when
    the socket is closed. Raises `ProcessFailed` if it cannot be started.
    """

    def __init__(self, expected: int = 0) -> None:
        self.limits = ProcessLimits(_LIFETIME, _MEMORY, _MAX_REPLY)
        numpy = numpy_folder() if expected >= LARGE else ""
        try:
            self.requests, theirs = socket.socketpair()
        except OSError as error:
            raise ProcessFailed(f"the process could not be started: {error}") from error
        with theirs:
            try:
                self.process = start_bounded(
                    "adaptry.adapters.inspection.subprocess_main",
                    self.limits,
                    arguments=[numpy] if numpy else [],
                    niceness=NICENESS,
                    stdin=theirs.fileno(),
                )
            except ProcessFailed:
                self.requests.close()
                raise

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        """Kills the process and waits for it."""
        self.requests.close()
        with self.process:
            self.process.kill()


def numpy_folder() -> str:
    """The folder in which numpy is installed, found without importing it; empty if numpy is missing."""
    found = importlib.util.find_spec("numpy")
    return str(Path(found.origin).parent.parent) if found and found.origin else ""
