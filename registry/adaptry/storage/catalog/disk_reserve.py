"""Disk space reserved beside a SQLite catalog, so that a sweep can still run when the disk is full.

Deleting needs space first: SQLite writes changes to its log before it deletes. The reserve is an unused file
of 1 MiB. `gc` and the other commands that free space delete it when the disk is full. When they end, they
create it again, before another program takes the space: a `delete` frees nothing until a `gc` follows it.
(CockroachDB keeps a ballast file for the same purpose.)
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

FILE = "catalog.reserve"
SIZE = 1 << 20
_NEEDED = 128 << 10
"""SQLite needs 32 KiB of shared memory to open a database, and a log of a few pages to change one."""
_MIN_FREE = 16 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}


def allocate_reserve(folder: Path) -> None:
    """Creates the reserve if it is missing, unless it would take more than an eighth of the free space."""
    with suppress(OSError):
        if not (folder / FILE).exists() and _free(folder) >= 8 * SIZE:
            _allocate(folder / FILE, SIZE)


def release_reserve(folder: Path) -> bool:
    """Deletes the reserve if the disk is full; returns whether there was one."""
    if not is_full(folder) or not (folder / FILE).exists():
        return False
    (folder / FILE).unlink(missing_ok=True)
    return True


def restore_reserve(folder: Path) -> None:
    """Creates a released reserve again, smaller if the disk has less space, unless no change would fit."""
    size = SIZE
    while size > _NEEDED and not (folder / FILE).exists():
        try:
            _allocate(folder / FILE, size)
        except OSError:
            size //= 2


def _allocate(path: Path, size: int) -> None:
    """Writes the reserve file. Raises `OSError`, and then leaves no file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        elif os.write(descriptor, bytes(size)) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def is_full(folder: Path) -> bool:
    """Whether the disk or the user's quota is too full to open and change a database."""
    import tempfile  # a push into an existing registry does not need it

    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(_NEEDED))
            return file.tell() < _NEEDED
    except OSError as error:
        return error.errno in _FULL


def is_nearly_full(folder: Path) -> bool:
    """Whether the log of a database must be kept short."""
    return _free(folder) < _MIN_FREE


def _free(folder: Path) -> int:
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize
