"""Locks on files, between processes: shared or exclusive, and released when a process dies, however it dies.

Nothing else in Adaptry calls flock. A lock's file may be removed by its exclusive holder: a waiter notices
that and locks the new file. Needs a POSIX system and a local file system, as engines have; Windows can import
this module and lock nothing. Where the file of a `FileLock` cannot be made it is `Unavailable`, or
`StorageFull`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from adaptry.core.files.durable import write_error

if sys.platform != "win32":
    import fcntl


class FileLock:
    """A lock that is held until `release`. `acquire_shared` and `acquire_exclusive` wait for it, `try_shared`
    and `try_exclusive` do not.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def acquire_shared(cls, path: Path, *, mode: int = 0o666) -> Self:
        """Waits while someone holds it exclusively. `mode` is that of the lock's file, if it is made."""
        return cls(path, _acquire(path, mode, shared=True))

    @classmethod
    def try_shared(cls, path: Path, *, mode: int = 0o666) -> Self | None:
        """Shared; None if someone holds it exclusively."""
        try:
            return cls(path, _acquire(path, mode, shared=True, wait=False))
        except BlockingIOError:
            return None

    @classmethod
    def acquire_exclusive(cls, path: Path, *, mode: int = 0o666) -> Self:
        """Waits while anyone holds it."""
        return cls(path, _acquire(path, mode))

    @classmethod
    def try_exclusive(cls, path: Path, *, mode: int = 0o666) -> Self | None:
        """Exclusive; None if anyone holds it."""
        try:
            return cls(path, _acquire(path, mode, wait=False))
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


def locked(path: Path, open: Callable[[], int], *, shared: bool = False, wait: bool = True) -> int:
    """A descriptor of what `open` opens at `path`, locked; opened again if it was removed, or something else
    put there, before it was locked. Raises what `open` raises, and `BlockingIOError` if someone holds it and
    `wait` is false.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        descriptor = open()
        try:
            fcntl.flock(descriptor, how)
            if _is_still(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Locks an open file or folder alone for as long as this process has it open; False where another has,
    and where the file system has no locks. It tells what living processes use from what dead ones left.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_unlocked(folder: Path) -> bool:
    """Removes a folder unless a process has it locked; whether it is gone. Links and unopenable ones stay."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    try:
        is_free = try_lock(descriptor)
        if is_free:
            shutil.rmtree(folder, ignore_errors=True)
        return is_free
    finally:
        os.close(descriptor)


def _acquire(path: Path, mode: int, *, shared: bool = False, wait: bool = True) -> int:
    def opened() -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        except OSError as error:
            raise write_error(error, path) from error

    return locked(path, opened, shared=shared, wait=wait)


def _is_still(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
