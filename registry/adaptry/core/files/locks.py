"""Locks on files, between processes: shared or exclusive, and released when a process dies, however it dies.

The exclusive holder may remove the lock's file: a waiter notices that and locks the new file. Needs
a POSIX system (flock) and a local file system, as engines have. Where a lock's file cannot be made it is `Unavailable`, or
`StorageFull`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from adaptry.core.files.durable import write_error


class FileLock:
    """A lock that is held until `release`. `acquire_…` waits for it, `try_…` does not."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def acquire_shared(cls, path: Path, *, mode: int = 0o666) -> Self:
        """Waits while someone holds it exclusively. `mode` is that of the lock's file, if it is made."""
        return cls(path, _acquire(path, fcntl.LOCK_SH, mode))

    @classmethod
    def try_shared(cls, path: Path, *, mode: int = 0o666) -> Self | None:
        """Shared; None if someone holds it exclusively."""
        try:
            return cls(path, _acquire(path, fcntl.LOCK_SH | fcntl.LOCK_NB, mode))
        except BlockingIOError:
            return None

    @classmethod
    def acquire_exclusive(cls, path: Path, *, mode: int = 0o666) -> Self:
        """Waits while anyone holds it."""
        return cls(path, _acquire(path, fcntl.LOCK_EX, mode))

    @classmethod
    def try_exclusive(cls, path: Path, *, mode: int = 0o666) -> Self | None:
        """Exclusive; None if anyone holds it."""
        try:
            return cls(path, _acquire(path, fcntl.LOCK_EX | fcntl.LOCK_NB, mode))
        except BlockingIOError:
            return None

    def release(self) -> None:
        fcntl.flock(
            self._descriptor, fcntl.LOCK_UN
        )  # for forked children too, which have the descriptor as well
        os.close(self._descriptor)

    def remove(self) -> None:
        """Removes the lock's file and releases it. Only for its exclusive holder."""
        self.path.unlink(missing_ok=True)
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _acquire(path: Path, how: int, mode: int = 0o666) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        except OSError as error:
            raise write_error(error, path) from error
        try:
            fcntl.flock(descriptor, how)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # removed while we waited: another file is the lock now


def _is_still(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
