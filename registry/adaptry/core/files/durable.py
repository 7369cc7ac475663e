"""Writes that survive a power failure, and errors of the file system as ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from adaptry.core.errors import StorageFull, Unavailable


def write_error(error: OSError, target: Path) -> StorageFull | Unavailable:
    """An error of the file system as ours, naming the place."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"no space left for {target}; nothing was kept. Free some space and try again")
    return Unavailable(f"cannot write {target}: {error.strerror or error}")


def flush_folder(folder: Path) -> None:
    """Makes the names in `folder` durable. Windows has no such call: there the rename is what we get."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_files(place: Path) -> None:
    """Makes every file and folder under `place` durable."""
    for path in sorted(place.rglob("*")):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        else:
            flush_folder(path)
    flush_folder(place)
