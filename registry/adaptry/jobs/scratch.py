"""The scratch folder of a runner's steps, which is removed when the runner ends, even by a crash.

A killed runner cannot clean up. The next runner on the machine removes folders that no process holds a lock
on. Needs a POSIX system (flock), as runners do.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adaptry.core.files.locks import remove_unlocked, try_lock

_PREFIX = "adaptry-work-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder among the system's temporary files, removed at the end of the block. Raises `OSError` if
    none can be created."""
    _sweep()
    place, descriptor = _make_folder()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def _make_folder() -> tuple[Path, int]:
    """A folder, and the descriptor whose lock marks it as used."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with suppress(FileNotFoundError):
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            if try_lock(descriptor) and place.exists():
                return place, descriptor
            os.close(descriptor)
        # Another process removed the folder before it was locked.


def _sweep() -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        remove_unlocked(left)
