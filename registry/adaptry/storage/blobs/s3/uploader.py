"""Writes segments to a bucket, several at once, while more bytes arrive."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from adaptry.storage.blobs.s3.objects import S3Objects

_CONCURRENCY = 3
"""Together with the segment being filled, 32 MiB of an upload are in memory."""


class SegmentUploader:
    """The writes under way of a staging, in the store's threads. `unsent` are bytes that could not be
    written.
    """

    def __init__(self, objects: S3Objects, pool: ThreadPoolExecutor) -> None:
        self.unsent: dict[str, bytearray] = {}
        self._objects = objects
        self._pool = pool
        self._coming: deque[Future[None]] = deque()

    def put(self, name: str, data: bytearray) -> None:
        """Starts writing an object; waits while too many are being written. Raises their errors."""
        self.unsent[name] = data
        self._coming.append(self._pool.submit(self._write, name, data))
        while len(self._coming) > _CONCURRENCY:
            self._coming.popleft().result()

    def drain(self) -> None:
        """Waits until all writes have ended. Raises the error of one of them."""
        ended, self._coming = self._coming, deque()
        failures = [failure for future in ended if (failure := future.exception())]
        if failures:
            raise failures[0]

    def _write(self, name: str, data: bytearray) -> None:
        self._objects.put(name, data)
        del self.unsent[name]
