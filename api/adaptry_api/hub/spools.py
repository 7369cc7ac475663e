"""Spools: folders in which the pieces of one upload wait, in whatever order they come, until a file is made of them.

They are on disk, so that every process of a server finds what another received, and memory holds a piece at a time.
Nothing in them lasts: what is idle is removed, and an upload that broke off is made again from its beginning.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from adaptry.errors import StorageFull, TooLarge, Unavailable
from adaptry.manifest import MAX_REVISION

IDLE_SECONDS = 3600.0
FINISHED_SECONDS = 600.0
"""A finished spool is kept for so long: a client may come back to it with more."""
MOST_OPEN = 64
"""Spools that one namespace may have at once; finished ones make room for new ones."""
LARGEST = MAX_REVISION
"""Bytes that one spool may hold."""

_BUFFER = 1 << 20
_FINISHED = "finished"
_ALONE = ".alone"


class Spools:
    """All spools of a server, in `folder`, which is made when the first one is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def open(self, namespace: str, id: str) -> Iterator[Spool]:
        """The spool `id`, empty if it is new, and safe from being swept until the block ends.

        Raises `TooLarge` where the namespace has too many, `StorageFull`, `Unavailable`.
        """
        path = self.folder / namespace / id
        with _explained(self.folder):
            if not path.exists():
                self._make(path)
            descriptor = _held(path)
        try:
            yield Spool(path)
        finally:
            os.close(descriptor)

    def sweep(self, now: float) -> int:
        """Removes what has been idle for too long; how many went. `now` is a Unix time."""
        gone = 0
        for path in self.folder.glob("[!.]*/*"):  # what begins with a dot is no namespace
            is_finished = (path / _FINISHED).exists()
            with suppress(FileNotFoundError):  # somebody else's sweep was here
                if path.stat().st_mtime < now - (FINISHED_SECONDS if is_finished else IDLE_SECONDS):
                    gone += _remove(path)
        return gone

    def _make(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        present = list(path.parent.iterdir())
        finished = sorted((p for p in present if (p / _FINISHED).exists()), key=lambda p: p.stat().st_mtime)
        while len(present) >= MOST_OPEN:
            if not finished:
                raise TooLarge(
                    f"{MOST_OPEN} uploads are under way in {path.parent.name} already; finish some, or wait: idle "
                    f"ones are dropped after {IDLE_SECONDS / 60:.0f} minutes"
                )
            oldest = finished.pop(0)
            if _remove(oldest):
                present.remove(oldest)
        path.mkdir(mode=0o700, exist_ok=True)


@dataclass(frozen=True, slots=True)
class Spool:
    """One upload's pieces, by name."""

    path: Path

    def write(self, name: str, pieces: Iterable[bytes]) -> int:
        """Keeps a piece under `name`, whole or not at all, in the place of an earlier one; how many bytes it has.

        Raises `TooLarge`, `StorageFull`, `Unavailable`, and whatever `pieces` raises.
        """
        room = LARGEST - self._size()
        draft = self.path / f".{secrets.token_hex(8)}"
        written = 0
        try:
            with _explained(self.path.parent), draft.open("xb", buffering=_BUFFER) as file:
                for piece in pieces:
                    written += len(piece)
                    if written > room:
                        raise TooLarge(
                            f"one upload may have {LARGEST >> 30} GiB under way; finish it, and go on"
                        )
                    file.write(piece)
            draft.replace(self.path / name)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        (self.path / _FINISHED).unlink(missing_ok=True)
        return written

    def piece(self, name: str) -> Path:
        """Where the piece of that name is, if it is there."""
        return self.path / name

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits for whoever else is in such a block with this spool, in any process. Raises `StorageFull`, `Unavailable`."""
        with _explained(self.path.parent):
            file = (self.path / _ALONE).open("w")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def finish(self) -> None:
        """Says that what the spool is for is done, so that it may go before others."""
        (self.path / _FINISHED).touch()

    def clear(self) -> None:
        """Forgets every piece; the spool is finished."""
        self.finish()
        for path in self.path.iterdir():
            if path.name != _FINISHED:
                path.unlink(missing_ok=True)

    def _size(self) -> int:
        size = 0
        for path in self.path.iterdir():
            with suppress(FileNotFoundError):  # another's draft, which has its name by now
                size += path.stat().st_size
        return size


def _held(path: Path) -> int:
    """The folder, opened and locked beside its other users, made again if it was swept meanwhile."""
    while True:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


def _remove(path: Path) -> bool:
    """Removes a spool unless somebody is using it; whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


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
