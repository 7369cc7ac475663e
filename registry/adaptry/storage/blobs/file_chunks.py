"""The bytes of a local file as an iterator, which a server may also send without reading them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from adaptry.storage.blobs.store import CHUNK


class FileChunks(Iterator[bytes]):
    """Opens a file and yields its bytes from `position` on, in pieces of at most 1 MiB. The file is closed at
    its end, by `close`, or when the iterator is deleted. One thread may use it at a time.
    """

    _descriptor: int | None = None

    def __init__(self, path: Path, position: int) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.position = position

    def __next__(self) -> bytes:
        piece = b"" if self._descriptor is None else os.pread(self._descriptor, CHUNK, self.position)
        if not piece:
            self.close()
            raise StopIteration
        self.position += len(piece)
        return piece

    def fileno(self) -> int:
        """The descriptor. Raises `ValueError` if the file is closed."""
        if self._descriptor is None:
            raise ValueError("the file is closed")
        return self._descriptor

    def close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()
