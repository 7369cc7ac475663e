"""Spools: folders that hold the pieces of one upload, in any order, until they are joined to a file.

They are on disk, so that every process of a server finds pieces that another received, and memory holds one
piece at a time. They are temporary: idle spools are removed, and an interrupted upload starts again from its
beginning.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adaptry.core.errors import Busy, StorageFull, TooLarge, Unavailable
from adaptry.core.files.locks import locked, remove_unlocked, unlock
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import MAX_REVISION

IDLE_SECONDS = 3600.0
FINISHED_SECONDS = 600.0
"""Seconds that a finished spool is kept: a client may send more to it."""
ABANDONED_SECONDS = 300.0
"""Seconds after which an unused spool may be removed for another; an active client sends pieces more often.
"""
MAX_OPEN_SPOOLS = 64
"""Maximum number of spools of one namespace; finished and abandoned ones are removed for new ones."""
MAX_SPOOL_BYTES = MAX_REVISION
"""Maximum size of one spool in bytes."""

_BATCH = 1 << 20
_MAX_PIECES = 1024  # the maximum for one writev call
_FINISHED = "finished"
_LOCK_FILE = ".alone"


class UploadSpools:
    """All spools of a server, in `folder`, which is created with the first spool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def open(self, namespace: str, id: str) -> Iterator[UploadSpool]:
        """The spool `id`, empty if it is new, protected from removal until the block ends.

        Raises `Busy` while the namespace has too many spools, `StorageFull`, `Unavailable`.
        """
        path = self.folder / namespace / id
        with _explained(self.folder):
            if not path.exists():
                self._make_room(path.parent)
            descriptor = _made_and_locked(path)
        try:
            yield UploadSpool(path)
        finally:
            unlock(descriptor)

    def sweep(self, now: float) -> int:
        """Removes spools that were idle for too long; returns how many. `now` is a Unix time."""
        gone = 0
        for path in self.folder.glob("[!.]*/*"):  # names that begin with a dot are not namespaces
            is_finished = (path / _FINISHED).exists()
            with suppress(FileNotFoundError):  # removed by another process
                if path.stat().st_mtime < now - (FINISHED_SECONDS if is_finished else IDLE_SECONDS):
                    gone += remove_unlocked(path)
        return gone

    def _make_room(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        present = list(folder.iterdir())
        if len(present) >= MAX_OPEN_SPOOLS:
            needless = _removable(present, time.time() - ABANDONED_SECONDS)
            while len(present) >= MAX_OPEN_SPOOLS:
                if not needless:
                    raise Busy(
                        f"{folder.name} already has {MAX_OPEN_SPOOLS} uploads under way; try again"
                        f" when some have finished (those idle for {ABANDONED_SECONDS / 60:.0f} minutes make"
                        " room)"
                    )
                oldest = needless.pop(0)
                if remove_unlocked(oldest):
                    present.remove(oldest)


@dataclass(frozen=True, slots=True)
class UploadSpool:
    """One upload's pieces, by name."""

    path: Path

    def write(self, name: str, pieces: Iterable[bytes | memoryview]) -> int:
        """Stores a piece atomically as `name`, replacing an earlier one; returns its size in bytes.

        Raises `TooLarge`, `StorageFull`, `Unavailable`, and the errors of `pieces`.
        """
        room = MAX_SPOOL_BYTES - self._size()
        draft = self.path / f".{secrets.token_hex(8)}"
        written = 0
        try:
            with _explained(self.path.parent), draft.open("xb", buffering=0) as file:
                for batch in batches(pieces):
                    written += sum(map(len, batch))
                    if written > room:
                        raise TooLarge(
                            f"an upload can have {MAX_SPOOL_BYTES >> 30} GiB under way; finish it first"
                        )
                    _write_all(file.fileno(), batch)
            draft.replace(self.path / name)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        (self.path / _FINISHED).unlink(missing_ok=True)
        return written

    def piece_path(self, name: str) -> Path:
        """The path of the piece of that name, if it exists."""
        return self.path / name

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Locks the spool, after waiting for its other users in any process. Raises `StorageFull`,
        `Unavailable`.
        """
        path = self.path / _LOCK_FILE
        with _explained(self.path.parent):
            lock = locked(path, lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            yield
        finally:
            unlock(lock)

    def mark_finished(self) -> None:
        """Marks the spool as finished, so that it is removed before others."""
        (self.path / _FINISHED).touch()

    def clear(self) -> None:
        """Deletes every piece; the spool is finished."""
        self.mark_finished()
        for path in self.path.iterdir():
            if path.name != _FINISHED:
                path.unlink(missing_ok=True)

    def _size(self) -> int:
        size = 0
        for path in self.path.iterdir():
            with suppress(FileNotFoundError):  # another process's temporary file, renamed in the meantime
                size += path.stat().st_size
        return size


def batches(pieces: Iterable[bytes | memoryview]) -> Iterator[list[bytes | memoryview]]:
    """The pieces in groups of about 1 MiB."""
    batch: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _BATCH or len(batch) == _MAX_PIECES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write_all(descriptor: int, pieces: Iterable[bytes | memoryview]) -> None:
    left = [memoryview(piece) for piece in pieces]
    while left:
        written = os.writev(descriptor, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _removable(present: Iterable[Path], before: float) -> list[Path]:
    """The spools that may be removed: the finished ones, then those unused since `before`, oldest first."""
    found: list[tuple[bool, float, Path]] = []
    for path in present:
        with suppress(FileNotFoundError):  # removed in the meantime
            is_finished, used_at = (path / _FINISHED).exists(), path.stat().st_mtime
            if is_finished or used_at < before:
                found.append((not is_finished, used_at, path))
    return [path for *_, path in sorted(found)]


def _made_and_locked(path: Path) -> int:
    """The folder's descriptor, locked in shared mode. The folder is created, again if a sweep removes it
    meanwhile: after `mkdir` found it, or after it was opened.
    """

    def opened() -> int:
        while True:
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    return locked(path, opened, shared=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                "no space left on the disk for this upload; free some space and upload again"
            ) from error
        raise Unavailable(f"cannot write to {folder}: {error.strerror}") from error
