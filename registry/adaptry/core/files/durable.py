"""Writes that survive a power failure, and the file system's errors as Adaptry's errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.core.errors import StorageFull, Unavailable

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


WRITE = 1 << 18
"""Size in bytes of a write. Writes of 1 MiB took up to three times the processor's time on ext4, while the
file was flushed.
"""


def write_error(error: OSError, target: Path) -> StorageFull | Unavailable:
    """The error to raise for an `OSError` while writing to `target`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"no space left for {target}; nothing was kept. Free some space and try again")
    return Unavailable(f"cannot write {target}: {error.strerror or error}")


def flush_folder(folder: Path) -> None:
    """Makes the names in `folder` durable. Windows has no call for this; there we rely on the rename."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ParallelFlush:
    """Flushes several files at once, for all threads of a process.

    Each flush waits for the same disk, and the system completes those that wait at the same time together:
    three files take as long as one, and so do the files of several callers.
    """

    _THREADS = 16

    def __init__(self) -> None:
        self._owner = 0
        self._pool: ThreadPoolExecutor | None = None

    def flush(self, descriptors: Sequence[int]) -> None:
        """Returns when all are on the disk. Raises `OSError` if one is not."""
        own, *others = descriptors
        flushes = [self._threads().submit(os.fsync, other) for other in others]
        try:
            os.fsync(own)
        finally:
            errors = [flush.exception() for flush in flushes]  # the callers close them: wait for all
        for error in errors:
            if error is not None:
                raise error

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None or self._owner != os.getpid():  # a fork has no threads of its parent
            # Imports logging, which a listing does not need.
            from concurrent.futures import ThreadPoolExecutor

            self._pool, self._owner = ThreadPoolExecutor(self._THREADS, "flush"), os.getpid()
        return self._pool


def flush_files(place: Path) -> None:
    """Flushes every file and folder under `place` to disk."""
    for path in sorted(place.rglob("*")):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        else:
            flush_folder(path)
    flush_folder(place)
