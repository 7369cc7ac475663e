"""Allows one run at a time in a folder, and ends processes of a killed run: two databases on one folder would
damage it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

_SECONDS = 10.0


class Taken(Exception):
    """Another run uses the folder, which the message names."""


def claim_folder(folder: Path) -> IO[str]:
    """Locks the folder for this process until the file is closed or the process ends in any way. Raises
    `Taken`, `OSError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claim = (folder / "lock").open("a")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        claim.close()
        raise Taken(f"a topology runs in {folder} already; stop it, or take another folder") from None
    return claim


def end_leftovers(folder: Path) -> None:
    """Ends the services of an earlier run in this folder that was killed."""
    try:
        state = json.loads((folder / "state.json").read_text())
    except (FileNotFoundError, ValueError):
        return
    for name, service in state.items():
        pid = service["pid"]
        if pid and _is_of(pid, folder):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _wait_for_end(pid, folder, name)


def _is_of(pid: int, folder: Path) -> bool:
    """Whether the process was started for this folder, and its id was not reused by another one."""
    try:
        origin = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return f"{folder}/".encode() in origin


def _wait_for_end(pid: int, folder: Path, name: str) -> None:
    """Ends a process. Raises `Taken` if it does not end."""
    end = time.monotonic() + _SECONDS
    while _is_of(pid, folder):
        if time.monotonic() > end:
            raise Taken(f"{name} of an earlier run is still there, as process {pid}; end it first")
        time.sleep(0.05)
