"""Spools: folders where one upload's pieces wait, in any order, until a file is made of them.

They are on disk, so that every process of a server finds what another received, and memory holds a piece at a
time. Nothing in them lasts: what is idle is removed, and an upload that broke off is made again from its
beginning.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from adaptry.core.errors import Busy, StorageFull, TooLarge, Unavailable
from adaptry.core.files.locks import locked, remove_unlocked
from adaptry.core.manifest import MAX_REVISION

IDLE_SECONDS = 3600.0
FINISHED_SECONDS = 600.0
"""A finished spool is kept for so long: a client may come back to it with more."""
ABANDONED_SECONDS = 300.0
"""A spool unused for so long makes room for another; a live client sends a piece more often."""
MAX_OPEN_SPOOLS = 64
"""Spools that one namespace may have at once; finished and abandoned ones make room for new ones."""
MAX_SPOOL_BYTES = MAX_REVISION
"""Bytes that one spool may hold."""

_BUFFER = 1 << 20
_FINISHED = "finished"
_ALONE = ".alone"


class UploadSpools:
    """All spools of a server, in `folder`, which is made when the first one is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def open(self, namespace: str, id: str) -> Iterator[UploadSpool]:
        """The spool `id`, empty if it is new, and safe from being swept until the block ends.

        Raises `Busy` while the namespace has too many, `StorageFull`, `Unavailable`.
        """
        path = self.folder / namespace / id
        with _explained(self.folder):
            if not path.exists():
                self._make(path)
            descriptor = _held(path)
        try:
            yield UploadSpool(path)
        finally:
            os.close(descriptor)

    def sweep(self, now: float) -> int:
        """Removes what has been idle for too long; how many went. `now` is a Unix time."""
        gone = 0
        for path in self.folder.glob("[!.]*/*"):  # what begins with a dot is no namespace
            is_finished = (path / _FINISHED).exists()
            with suppress(FileNotFoundError):  # somebody else's sweep was here
                if path.stat().st_mtime < now - (FINISHED_SECONDS if is_finished else IDLE_SECONDS):
                    gone += remove_unlocked(path)
        return gone

    def _make(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        present = list(path.parent.iterdir())
        if len(present) >= MAX_OPEN_SPOOLS:
            needless = _needless(present, time.time() - ABANDONED_SECONDS)
            while len(present) >= MAX_OPEN_SPOOLS:
                if not needless:
                    raise Busy(
                        f"{MAX_OPEN_SPOOLS} uploads are under way in {path.parent.name} already; try again"
                        f" when some have finished (those idle for {ABANDONED_SECONDS / 60:.0f} minutes make"
                        " room)"
                    )
                oldest = needless.pop(0)
                if remove_unlocked(oldest):
                    present.remove(oldest)
        path.mkdir(mode=0o700, exist_ok=True)


@dataclass(frozen=True, slots=True)
class UploadSpool:
    """One upload's pieces, by name."""

    path: Path

    def write(self, name: str, pieces: Iterable[bytes]) -> int:
        """Keeps a piece under `name`, whole or not at all, in place of an earlier one; how many bytes it has.

        Raises `TooLarge`, `StorageFull`, `Unavailable`, and whatever `pieces` raises.
        """
        room = MAX_SPOOL_BYTES - self._size()
        draft = self.path / f".{secrets.token_hex(8)}"
        written = 0
        try:
            with _explained(self.path.parent), draft.open("xb", buffering=_BUFFER) as file:
                for piece in pieces:
                    written += len(piece)
                    if written > room:
                        raise TooLarge(
                            f"one upload may have {MAX_SPOOL_BYTES >> 30} GiB under way; finish it, and go on"
                        )
                    file.write(piece)
            draft.replace(self.path / name)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        (self.path / _FINISHED).unlink(missing_ok=True)
        return written

    def piece_path(self, name: str) -> Path:
        """Where the piece of that name is, if it is there."""
        return self.path / name

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Waits for other users of this spool, in any process. Raises `StorageFull`, `Unavailable`."""
        path = self.path / _ALONE
        with _explained(self.path.parent):
            lock = locked(path, lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            yield
        finally:
            os.close(lock)

    def mark_finished(self) -> None:
        """Says that what the spool is for is done, so that it may go before others."""
        (self.path / _FINISHED).touch()

    def clear(self) -> None:
        """Forgets every piece; the spool is finished."""
        self.mark_finished()
        for path in self.path.iterdir():
            if path.name != _FINISHED:
                path.unlink(missing_ok=True)

    def _size(self) -> int:
        size = 0
        for path in self.path.iterdir():
            with suppress(FileNotFoundError):  # another's draft, which has its name by now
                size += path.stat().st_size
        return size


def _needless(present: Iterable[Path], before: float) -> list[Path]:
    """The spools that may make room: the finished ones, then those unused since `before`, oldest first."""
    found: list[tuple[bool, float, Path]] = []
    for path in present:
        with suppress(FileNotFoundError):  # swept meanwhile
            is_finished, used_at = (path / _FINISHED).exists(), path.stat().st_mtime
            if is_finished or used_at < before:
                found.append((not is_finished, used_at, path))
    return [path for *_, path in sorted(found)]


def _held(path: Path) -> int:
    """The folder, opened and locked beside its other users, made again if it was swept meanwhile."""

    def opened() -> int:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    return locked(path, opened, shared=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                "no space left for what is being uploaded; free some and upload again"
            ) from error
        raise Unavailable(f"cannot write to {folder}: {error.strerror}") from error
