"""The source of an adapter's files: a folder, a registry or a blob store.

A content has names and sizes, and reads ranges of bytes. It does not know what an adapter is.
"""

from __future__ import annotations

import io
import os
import stat
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from adaptry.adapters.header import ReadAt
from adaptry.core.errors import Invalid, NotFound

CHUNK = 1 << 20


class Content(ABC):
    """An immutable set of named files."""

    @property
    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """The size of each file in bytes, by name, in name order."""

    @abstractmethod
    def read(self, path: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes, starting at `offset`; fewer only at the end of the file."""

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        """The file from position `start` to its end, in pieces of at most 1 MiB."""
        size = self.sizes[path]
        while start < size:
            piece = self.read(path, start, min(CHUNK, size - start))
            if not piece:
                raise Invalid(f"{path} became shorter while it was read; is something still writing it?")
            yield piece
            start += len(piece)

    def descriptor(self, path: str) -> AbstractContextManager[int | None]:
        """The file, open for positional reads during the block; None if it is not on this machine."""
        return nullcontext(None)

    def check_unchanged(self) -> None:
        """Raises `Invalid` if a file was written to after it was read: the data read may mix two versions.
        Files outside a folder cannot change.
        """
        return

    def read_all(self, path: str, limit: int) -> bytes:
        """The whole file, which may be at most `limit` bytes. Raises `NotFound`, `Invalid`."""
        if path not in self.sizes:
            raise NotFound(f"there is no {path}")
        if self.sizes[path] > limit:
            raise Invalid(f"{path} is {self.sizes[path]:,} bytes; at most {limit:,} are read")
        return b"".join(self.chunks(path))

    def reader(self, path: str) -> ReadAt:
        return lambda offset, length: self.read(path, offset, length)


class StreamedContent(Content):
    """Files that are streamed from a position on: a subclass implements `chunks`."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        found = bytearray()
        for chunk in self.chunks(path, offset):
            found += chunk
            if len(found) >= length:
                break
        return bytes(found[:length])

    @abstractmethod
    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]: ...


class MemoryContent(Content):
    """Files in memory, by name."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = {name: files[name] for name in sorted(files)}
        self._sizes = {name: len(data) for name, data in self._files.items()}

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def read(self, path: str, offset: int, length: int) -> bytes:
        return self._files[path][offset : offset + length]


class FolderContent(Content):
    """Files of a folder, each opened once and read by position."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        with ExitStack() as opened:  # if one cannot be opened, close all
            self._files = {name: opened.enter_context(open_regular(folder / name)) for name in sorted(names)}
            close = opened.pop_all().close
        weakref.finalize(self, close)  # a view is a value, so callers do not close it
        self._read: set[str] = set()
        self._states = {name: open_file_state(file) for name, file in self._files.items()}
        self._sizes = {name: size for name, (size, _) in self._states.items()}

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def read(self, path: str, offset: int, length: int) -> bytes:
        self._read.add(path)
        return read_at(self._files[path])(offset, length)

    def descriptor(self, path: str) -> AbstractContextManager[int | None]:
        self._read.add(path)
        return nullcontext(self._files[path].fileno())

    def check_unchanged(self) -> None:
        for name in sorted(self._read):
            if open_file_state(self._files[name]) != self._states[name]:
                raise Invalid(
                    f"{self.folder / name} changed while it was read; is something still writing it?"
                    " Try again when it is complete"
                )


def open_file_state(file: io.FileIO) -> tuple[int, int]:
    """The file's size in bytes and the time of its last change in ns, to detect later writes."""
    state = os.fstat(file.fileno())
    return state.st_size, state.st_mtime_ns


def open_regular(path: Path) -> io.FileIO:
    """Opens `path` for reading. Raises `NotFound`, and `Invalid` if it is not a regular file."""
    try:
        # Non-blocking, so that a FIFO without a writer is refused and does not block.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise NotFound(f"no file at {path}") from None
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise Invalid(
            f"{path} is {kind}, where a file is expected; pass the folder that the training run saved"
        )
    return io.FileIO(descriptor, "r")


def read_at(file: io.FileIO) -> ReadAt:
    """Reads at a position. Without `pread` (on Windows) it seeks, so only one thread may read a file."""
    if hasattr(os, "pread"):
        return lambda offset, length: os.pread(file.fileno(), length, offset)

    def read(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    return read
