"""Reads an object from end to end in ranges, several of which are prefetched.

One reader has at most 16 MiB in memory, and a slow reader holds no connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from adaptry.storage.blobs.s3.objects import S3Objects

_RANGE = 4 << 20
_READ_AHEAD = 3


def read_ahead(
    objects: S3Objects, pool: ThreadPoolExecutor, key: str, start: int, end: int
) -> Iterator[bytes]:
    """The bytes from `start` to `end`, in pieces of 4 MiB. Raises `NotFound`, `Unavailable`."""
    starts = iter(range(start, end, _RANGE))
    coming: deque[Future[tuple[bytes, int]]] = deque()
    try:
        while True:
            while len(coming) < _READ_AHEAD and (at := next(starts, None)) is not None:
                coming.append(pool.submit(objects.read, key, at, min(_RANGE, end - at)))
            if not coming:
                return
            yield coming.popleft().result()[0]
    finally:
        for future in coming:
            future.cancel()
