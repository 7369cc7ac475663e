"""Writes that survive a power failure, and the file system's errors as Adaptry's errors."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from adaptry.core.errors import StorageFull, Unavailable


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


def flush_files(place: Path) -> None:
    """Flushes every file and folder under `place` to disk."""
    for path in sorted(place.rglob("*")):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        else:
            flush_folder(path)
    flush_folder(place)
