"""A cache on disk of files that are expensive to compute or fetch, by tag. When it exceeds its limit in
bytes, the least recently used files are removed.

A limit of 0 turns it off. A file is written under a temporary name, flushed, and renamed when it is
complete. A lock on the unfinished file shows that its writer is alive.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.files.locks import try_lock

_PART = ".part"


class DiskLruCache:
    """Safe for many threads, and for many processes on the same folder. Creates the folder."""

    def __init__(self, folder: Path, limit: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._limit = limit
        self._sweep()

    def open(self, tag: Digest, size: int) -> io.FileIO | None:
        """The cached file, which the caller closes, or None."""
        path = self._folder / tag.hex
        try:
            file = io.FileIO(path, "r")
            os.utime(path)
        except OSError:
            return None
        if os.fstat(file.fileno()).st_size == size:
            return file
        file.close()
        return None

    @contextlib.contextmanager
    def writer(self, tag: Digest, size: int) -> Iterator[Callable[[bytes], None] | None]:
        """Yields a function that takes the file's bytes, in order; None if the file will not be cached.

        The file is cached if the block ends and all bytes were written. If the disk is full, it is not.
        """
        if size > self._limit:
            yield None
            return
        place = self._folder / f"{tag.hex}.{secrets.token_hex(4)}{_PART}"
        with _PartFile(place) as growing:
            yield growing.write
            if growing.size == size and growing.is_flushed():
                self._make_room(size)
                place.replace(self._folder / tag.hex)

    def _make_room(self, size: int) -> None:
        """Removes the least recently used files, until `size` more bytes are within the limit."""
        kept = []
        for path in self._folder.iterdir():
            if path.suffix != _PART:
                with contextlib.suppress(OSError):
                    state = path.stat()
                    kept.append((state.st_mtime_ns, state.st_size, path))
        left = self._limit - size - sum(each for _, each, _ in kept)
        for _, each, path in sorted(kept):
            if left >= 0:
                return
            path.unlink(missing_ok=True)
            left += each

    def _sweep(self) -> None:
        """Removes unfinished files of dead writers, and files over the limit."""
        for path in self._folder.glob(f"*{_PART}"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                if try_lock(file.fileno()):
                    path.unlink(missing_ok=True)
        self._make_room(0)


class _PartFile:
    """A file that is being written. It is removed unless it was renamed. After a failed write, further writes
    are ignored.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self.size = 0

    def __enter__(self) -> _PartFile:
        with contextlib.suppress(OSError):
            self._file = io.FileIO(self._path, "x")
            try_lock(self._file.fileno())
        return self

    def __exit__(self, *raised: object) -> None:
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        if self._file is None:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._file.close()
            self._file = None
            self.size = -1
        else:
            self.size += len(data)

    def is_flushed(self) -> bool:
        if self._file is None:
            return False
        try:
            os.fsync(self._file.fileno())
        except OSError:
            return False
        return True
