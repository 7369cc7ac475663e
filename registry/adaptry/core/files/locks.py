"""Locks on files, between processes: shared or exclusive, and released when a process ends, even by a crash.

Nothing else in Adaptry calls flock. The exclusive holder may remove the lock's file; a waiter notices that
and locks the new file. Needs a POSIX system and a local file system, which engines have. Windows can import
this module, but cannot lock. Raises `Unavailable` or `StorageFull` if the file of a `FileLock` cannot be
created.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from adaptry.core.files.durable import write_error

if sys.platform != "win32":
    import fcntl


class FileLock:
    """A lock that is held until `release`. `acquire_…` waits for the lock; `try_…` returns None if it is
    taken.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def acquire_shared(cls, path: Path, *, mode: int = 0o666) -> Self:
        """Waits while another process holds it exclusively. `mode` applies if the lock's file is created."""
        return cls(path, _acquire(path, mode, shared=True))

    @classmethod
    def try_shared(cls, path: Path, *, mode: int = 0o666) -> Self | None:
        """Shared; None if another process holds it exclusively."""
        try:
            return cls(path, _acquire(path, mode, shared=True, wait=False))
        except BlockingIOError:
            return None

    @classmethod
    def acquire_exclusive(cls, path: Path, *, mode: int = 0o666) -> Self:
        """Waits while any other process holds it."""
        return cls(path, _acquire(path, mode))

    @classmethod
    def try_exclusive(cls, path: Path, *, mode: int = 0o666) -> Self | None:
        """Exclusive; None if any other process holds it."""
        try:
            return cls(path, _acquire(path, mode, wait=False))
        except BlockingIOError:
            return None

    def release(self) -> None:
        unlock(self._descriptor)

    def remove(self) -> None:
        """Removes the lock's file and releases the lock. Only its exclusive holder may call this."""
        self.path.unlink(missing_ok=True)
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def locked(path: Path, open: Callable[[], int], *, shared: bool = False, wait: bool = True) -> int:
    """Calls `open`, locks the descriptor that it returns, and returns it. If `path` was removed or replaced
    before the lock was taken, it starts again. Raises the errors of `open`, and `BlockingIOError` if another
    process holds the lock and `wait` is false.
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
    """Locks an open file or folder exclusively, for as long as this process has it open. Returns False if
    another process holds it, or if the file system has no locks. Such a lock distinguishes files in use from
    files that dead processes left.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Releases the lock of `locked` or `try_lock`, and closes the descriptor.

    Closing alone is too late while another thread starts a program: until that program begins, it has the
    descriptor too, and with it the lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def remove_unlocked(folder: Path) -> bool:
    """Removes a folder unless a process holds a lock on it. Returns whether it is gone. Links, and folders
    that cannot be opened, are kept; so is a new folder of that name, created after another process removed
    the old one.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    try:
        if not try_lock(descriptor):
            return False
        if not _is_still(folder, descriptor):  # removed, and perhaps created again and in use
            return not folder.exists()
        import shutil  # imports modules for archives; few callers clean up

        shutil.rmtree(folder, ignore_errors=True)
        return True
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
