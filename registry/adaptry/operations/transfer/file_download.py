"""Downloads one file from a registry and verifies it while it streams.

Memory does not grow with file size. After a broken connection the download resumes. A second thread hashes,
and the system begins early to write to disk, so that neither slows the transfer down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adaptry.core.errors import DigestMismatch, Unavailable
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.files.durable import WRITE
from adaptry.core.files.early_writeback import EarlyWriteback
from adaptry.operations.transfer.retry import Failures

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from adaptry.core.digest import Digest
    from adaptry.core.progress import Progress
    from adaptry.operations.transfer.retry import RetryPolicy

_PIECE = 1 << 20

ReadFrom = Callable[[int], Iterator[bytes]]
"""The bytes of a file from an offset on; may raise `Unavailable` midway."""


class FileToFetch(Protocol):
    """A file of a revision, as an entry of its manifest or as plain values."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> Digest: ...


def download(read: ReadFrom, entry: FileToFetch, path: Path, progress: Progress, retry: RetryPolicy) -> None:
    """Writes the file to `path`, resuming an earlier partial download. The caller flushes it to disk.

    Raises `DigestMismatch` if the bytes do not match `entry`, `Unavailable` after too many broken connections
    in a row.
    """
    hasher = sha256()
    with (
        path.open("ab+", buffering=0) as file,
        BackgroundHasher(hasher.update) as beside,
    ):
        start = _hash_existing(file, hasher)
        writeback = EarlyWriteback(file.fileno())
        for chunk in read_resumable(read, entry, progress, retry, start):
            piece = memoryview(chunk)
            beside.update(piece)
            while piece:
                piece = piece[file.write(piece[:WRITE]) :]
            writeback.add_written(len(chunk))
        writeback.add_last()
    found = hasher.hexdigest()
    if found != entry.sha256.hex:
        raise DigestMismatch(
            f"{entry.path} has the digest sha256:{found[:12]}… instead of {entry.sha256.brief}…: its bytes"
            " changed in transit or in the store. Nothing was kept; try again. If this happens again,"
            " `adaptry verify --read-data` on the registry's machine finds the damage, and `adaptry repair`"
            " repairs it from a copy"
        )


def _hash_existing(file: FileIO, hasher: Hash) -> int:
    """Hashes what the file already contains; returns its size."""
    file.seek(0)
    while chunk := file.read(_PIECE):
        hasher.update(chunk)
    return file.tell()


def read_resumable(
    read: ReadFrom, entry: FileToFetch, progress: Progress, retry: RetryPolicy, start: int = 0
) -> Iterator[bytes]:
    """Yields a file's bytes from `start`, resuming after a broken connection. The caller verifies them."""
    position, failures = start, Failures(retry)
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
        except Unavailable as error:
            if position > began:
                failures.reset()
            else:
                failures.add(error)
            failures.wait()
        else:
            if position == began:
                raise DigestMismatch(f"{entry.path} ends after {position:,} of {entry.size:,} bytes")
