"""One file out of a registry, verified while it streams.

Memory does not grow with the file. A cut connection goes on where it stopped; hashing runs on a second
thread, so that it costs nothing beside the network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from adaptry.errors import DigestMismatch, Unavailable
from adaptry.manifest import FileEntry
from adaptry.progress import Progress
from adaptry.transfer.retrying import Persistence

_AHEAD = 8  # chunks of at most 1 MiB that wait to be hashed

ReadFrom = Callable[[int], Iterator[bytes]]
"""The bytes of a file from an offset on; may raise `Unavailable` midway."""


def download(
    read: ReadFrom, entry: FileEntry, path: Path, progress: Progress, persistence: Persistence
) -> None:
    """Writes the file to `path`, which must not exist; whoever publishes it flushes it.

    Raises `DigestMismatch` where the bytes are not those of `entry`, `Unavailable` after too many cuts in a row.
    """
    with path.open("xb") as file, _BackgroundHash() as digest:
        for chunk in _resumed(read, entry, progress, persistence):
            file.write(chunk)
            digest.update(chunk)
        found = digest.hex()
    if found != entry.sha256.hex:
        raise DigestMismatch(
            f"{entry.path} arrived as sha256:{found[:12]}… and not as {entry.sha256.brief}…: its bytes changed on the "
            "way or in the store. Nothing was kept; try again, and if it stays so, mend the store"
        )


def _resumed(
    read: ReadFrom, entry: FileEntry, progress: Progress, persistence: Persistence
) -> Iterator[bytes]:
    position, failures = 0, 0
    while position < entry.size:
        began = position
        try:
            for chunk in read(position):
                position += len(chunk)
                if position > entry.size:
                    raise DigestMismatch(
                        f"{entry.path} is longer than the {entry.size:,} bytes it should have"
                    )
                yield chunk
                progress(f"downloading {entry.path}", position, entry.size)
        except Unavailable:
            failures = 0 if position > began else failures + 1
            if persistence.gives_up(failures):
                raise
            persistence.wait(failures)
        else:
            if position == began:
                raise DigestMismatch(f"{entry.path} ends after {position:,} of {entry.size:,} bytes")


class _BackgroundHash:
    """A SHA-256 on a thread of its own, a few chunks behind at most."""

    def __init__(self) -> None:
        self._hasher = sha256()
        self._pool = ThreadPoolExecutor(1, "hash")
        self._pending: deque[Future[None]] = deque()

    def update(self, chunk: bytes) -> None:
        if len(self._pending) == _AHEAD:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._hasher.update, chunk))

    def hex(self) -> str:
        while self._pending:
            self._pending.popleft().result()
        return self._hasher.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
