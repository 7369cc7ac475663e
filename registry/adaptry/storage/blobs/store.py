"""The interface of a blob store, and the verification that every store shares.

Bytes arrive in a *staging*: a named, growing, exclusively locked place where an upload can pause and continue
later, even in another process. Publishing verifies all bytes and makes them a blob, or deletes them.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from adaptry.core.digest import Digest
from adaptry.core.errors import DigestMismatch, NotFound, OffsetMismatch
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.lazy_dataclass import dataclass

CHUNK = 1 << 20
"""Maximum size of a piece read or written: some kernels write 4 MiB ten times slower than 1 MiB."""

_KEPT_HASHERS = 256

Hashers = OrderedDict[str, tuple[int, "hashlib._Hash"]]


@dataclass(frozen=True, slots=True)
class UploadUrl:
    """A URL to PUT bytes to, and the headers to send with them."""

    url: str
    headers: Mapping[str, str]


def blob_not_found(digest: Digest) -> NotFound:
    """The error that every store raises for a missing blob."""
    return NotFound(
        f"no stored bytes {digest.brief}; if a version refers to them, they were lost:"
        " push its files again, or restore them from a copy with `adaptry repair --from`"
    )


def require_digest(digest: Digest, data: bytes) -> None:
    """Raises `DigestMismatch` if these are not the bytes with that digest."""
    found = hashlib.sha256(data).hexdigest()
    if found != digest.hex:
        raise _digest_mismatch(len(data), found, digest)


def _digest_mismatch(size: int, found: str, digest: Digest) -> DigestMismatch:
    return DigestMismatch(
        f"the {size:,} bytes received are sha256:{found[:12]}…, not {digest.brief}…: they"
        " changed in transit or while they were read; nothing was kept; send the file again"
    )


class BlobStore(ABC):
    """Blobs by digest, and their stagings. Safe to use from many threads and processes."""

    is_on_this_machine: ClassVar[bool] = True
    """Whether blobs are on this machine, so that sending a file again costs no more than resuming it."""

    def __init__(self) -> None:
        # Hash states of paused uploads. If one is lost, the bytes are read again.
        self._hashers: Hashers = OrderedDict()

    @abstractmethod
    def has(self, digest: Digest) -> bool: ...

    @abstractmethod
    def size(self, digest: Digest) -> int:
        """The size in bytes. Raises `NotFound`."""

    @abstractmethod
    def read(self, digest: Digest, start: int, length: int) -> bytes:
        """The bytes of the range (fewer only at the end), unverified. Raises `NotFound`."""

    def chunks(self, digest: Digest, start: int = 0) -> Iterator[bytes]:
        """The blob from `start` on, in pieces of at most 1 MiB, unverified. Raises `NotFound`, at once."""
        return self._pieces(digest, start, self.size(digest))

    def descriptor(self, digest: Digest) -> AbstractContextManager[int | None]:
        """The blob as a file, open for reading until the end of the block; None if it is not on this machine.

        Raises `NotFound`.
        """
        return nullcontext(None)

    def put(self, digest: Digest, chunks: Iterable[bytes | memoryview]) -> None:
        """Stores the blob; cheap if it exists. Raises `DigestMismatch`, `StorageFull`; then nothing is
        kept.
        """
        if self.has(digest):
            return
        with self.staging(self.new_key()) as staged:
            try:
                staged.append(0, chunks)
                staged.publish(digest)
            except BaseException:
                staged.discard()
                raise

    def put_all(self, blobs: Mapping[Digest, bytes]) -> None:
        """Stores several small blobs together, replacing copies that exist, which may be damaged.

        The caller has compared the bytes with their digests (`require_digest`). Raises `StorageFull`.
        """
        for digest, data in blobs.items():
            with self.staging(self.new_key()) as staged:
                try:
                    staged.append(0, [data])
                    staged.publish(digest)
                except BaseException:
                    staged.discard()
                    raise

    def ingest(self, chunks: Iterable[bytes | memoryview]) -> tuple[Digest, int]:
        """Stores bytes of unknown digest; returns their digest and size. This thread hashes them, since
        files are computed by a process for each core. If `chunks` raises an error, nothing is kept.
        """
        with self.staging(self.new_key()) as staged:
            try:
                staged.append(0, chunks, beside=False)
            except BaseException:
                staged.discard()
                raise
            digest, size = staged.digest(), staged.offset
            staged.publish(digest)
            return digest, size

    @abstractmethod
    def delete(self, digest: Digest) -> None:
        """Deletes the blob; a missing one is not an error."""

    def deletion(self) -> AbstractContextManager[bool]:
        """Surrounds the deletion of blobs; yields False if none may be deleted now, because a backup reads
        them.
        """
        return nullcontext(True)

    @property
    def original(self) -> BlobStore:
        """The underlying store, without a cache."""
        return self

    def is_sound(self, digest: Digest) -> bool:
        """Whether the stored bytes still have this digest; reads all of them. Raises `NotFound`."""
        with BackgroundHasher((hasher := hashlib.sha256()).update) as beside:
            for chunk in self.chunks(digest):
                beside.update(memoryview(chunk))
        return hasher.hexdigest() == digest.hex

    def set_aside(self, digest: Digest) -> bool:
        """Moves a blob aside if its bytes do not have this digest; returns whether it did.

        The bytes are kept for inspection. The blob is then missing until it is stored again. An intact blob
        stays, including one that replaces the damaged bytes while they are read.
        """
        seen = self.copy_id(digest)
        if seen is None or self.is_sound(digest):
            return False
        return self._move_aside(digest, seen)

    @abstractmethod
    def copy_id(self, digest: Digest) -> str | None:
        """Identifies the stored copy: changes when the blob is stored again; None if it is missing."""

    @abstractmethod
    def _move_aside(self, digest: Digest, seen: str) -> bool:
        """Moves the copy `seen` aside, and no other; returns whether it was still there."""

    @abstractmethod
    def digests(self) -> Iterator[Digest]:
        """Every blob, unordered; blobs published or deleted during the listing may or may not be included."""

    @staticmethod
    def new_key() -> str:
        """A new unguessable name for a staging."""
        return os.urandom(16).hex()

    @abstractmethod
    def staging(self, key: str) -> AbstractContextManager[StagedBlob]:
        """The staging of that name, empty if it is new, locked until the end of the block.

        Raises `Conflict` while another process holds it.
        """

    def link_staged(self, key: str, path: Path) -> bool:
        """Links the bytes of a staging to `path`, where they stay readable even if the staging is deleted;
        returns whether it did. Stores on other machines cannot do this.
        """
        return False

    @abstractmethod
    def staged_size(self, key: str) -> int:
        """The number of bytes in a staging; 0 if it does not exist."""

    @abstractmethod
    def is_held(self, key: str) -> bool:
        """Whether a process is writing to that staging now."""

    @abstractmethod
    def last_write(self, key: str) -> datetime | None:
        """The time when bytes last arrived in a staging (UTC), including bytes written by presigned URL; None
        if it is empty.
        """

    @abstractmethod
    def stagings(self) -> Iterator[str]:
        """The names of all stagings, including abandoned ones."""

    @abstractmethod
    def require_room(self, size: int) -> None:
        """Raises `StorageFull` if `size` more bytes certainly do not fit, before any is sent."""

    def tidy(self) -> int:
        """Deletes leftovers of dead processes that belong to no staging; returns how many there were."""
        return 0

    def download_url(self, digest: Digest, filename: str, seconds: int) -> str | None:
        """A presigned URL to read the blob for the given time, saved as `filename`; None if the store has no
        such URLs.
        """
        return None

    def upload_url(self, key: str, start: int, size: int, seconds: int) -> UploadUrl | None:
        """A presigned URL to write these bytes of a staging for the given time; None if the store has no such
        URLs.

        They count as staged once they are written. Publishing reads and verifies them again.
        """
        return None

    def _pieces(self, digest: Digest, start: int, size: int) -> Iterator[bytes]:
        while start < size:
            piece = self.read(digest, start, min(CHUNK, size - start))
            if not piece:
                return
            yield piece
            start += len(piece)


class StagedBlob(ABC):
    """An open staging. `offset` is the position of the next byte."""

    def __init__(self, key: str, offset: int, hashers: Hashers) -> None:
        self.key = key
        self.offset = offset
        self._hashers = hashers
        self._hasher = _resume(hashers, key, offset)
        self._is_gone = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hasher and self.offset:
            self._hashers[self.key] = (self.offset, self._hasher)
            while len(self._hashers) > _KEPT_HASHERS:
                self._hashers.popitem(last=False)
        if not self.offset and not self._is_gone:
            self.discard()
        self._release()

    def append(self, offset: int, chunks: Iterable[bytes | memoryview], *, beside: bool = True) -> None:
        """Adds bytes and hashes them, `beside` on another thread; bytes that arrived before `chunks` raised
        an error are kept.

        Raises `OffsetMismatch`; and `StorageFull`, after which the staging is as it was before.
        """
        if offset != self.offset:
            raise OffsetMismatch(
                f"{self.offset:,} bytes have arrived; continue at {self.offset}, not at {offset}", self.offset
            )
        update = self._hasher.update if self._hasher else None
        with BackgroundHasher(update if beside else None) as background:
            hash_piece = background.update if beside or update is None else update
            try:
                for chunk in chunks:
                    whole = memoryview(chunk).cast("B")
                    for at in range(0, len(whole), CHUNK):
                        piece = whole[at : at + CHUNK]
                        hash_piece(piece)
                        with self._undoing(offset):
                            self._write(piece)
                        self.offset += len(piece)
                    if not isinstance(chunk, bytes):
                        background.drain()  # the owner may send it again
            finally:
                with self._undoing(offset):
                    self._settle()

    @contextmanager
    def _undoing(self, start: int) -> Iterator[None]:
        """Truncates the staging to `start` if writing fails in the block."""
        try:
            yield
        except BaseException:
            self._truncate(start)
            self.offset, self._hasher = start, None if start else hashlib.sha256()
            raise

    @property
    def descriptor(self) -> int | None:
        """The bytes as a file that is open for positional reads; None if they are not on this machine."""
        return None

    def opened(self) -> int | None:
        """Like `descriptor`, but open for reading only, without the staging's lock. The caller closes it."""
        return None

    def digest(self) -> Digest:
        """The digest of the bytes that have arrived."""
        return Digest(self._hasher.hexdigest() if self._hasher else self._rehash())

    def publish(self, digest: Digest) -> None:
        """Publishes the staged bytes durably as the blob `digest`; or raises `DigestMismatch` and keeps
        nothing.
        """
        found = self._hasher.hexdigest() if self._hasher else self._rehash()
        self._hasher = None
        if found != digest.hex:
            received = self.offset
            self.discard()
            raise _digest_mismatch(received, found, digest)
        self._publish(digest)
        self._is_gone = True

    def discard(self) -> None:
        """Removes the staging and its bytes."""
        self._hasher = None
        self.offset = 0
        self._is_gone = True
        self._discard()

    def _rehash(self) -> str:
        hasher = hashlib.sha256()
        for start in range(0, self.offset, CHUNK):
            hasher.update(self._read(start, min(CHUNK, self.offset - start)))
        return hasher.hexdigest()

    @abstractmethod
    def _write(self, piece: memoryview) -> None:
        """Appends one complete piece, or raises an error."""

    @abstractmethod
    def _settle(self) -> None:
        """Waits until all writes have ended, or raises their error."""

    @abstractmethod
    def _truncate(self, offset: int) -> None: ...

    @abstractmethod
    def _read(self, start: int, length: int) -> bytes: ...

    @abstractmethod
    def _publish(self, digest: Digest) -> None: ...

    @abstractmethod
    def _discard(self) -> None: ...

    @abstractmethod
    def _release(self) -> None:
        """Releases the lock on the staging."""


def _resume(hashers: Hashers, key: str, offset: int) -> hashlib._Hash | None:
    """The hash state of the first `offset` bytes, if this process received all of them."""
    if offset == 0:
        hashers.pop(key, None)
        return hashlib.sha256()
    position, hasher = hashers.pop(key, (-1, None))
    return hasher if position == offset else None
