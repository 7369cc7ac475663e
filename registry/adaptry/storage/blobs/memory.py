"""Blobs in memory: the same promises as a folder, except durability. For tests and temporary registries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from threading import Lock

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict
from adaptry.storage.blobs.store import BlobStore, Hashers, StagedBlob, blob_not_found


class MemoryBlobs(BlobStore):
    """A `BlobStore` in memory, for the lifetime of this object."""

    def __init__(self) -> None:
        super().__init__()
        self._blobs: dict[Digest, bytes] = {}
        self._aside: list[tuple[Digest, bytes]] = []
        self._stagings: dict[str, bytearray] = {}
        self._held: set[str] = set()
        self._written: dict[str, datetime] = {}
        self._lock = Lock()

    def has(self, digest: Digest) -> bool:
        return digest in self._blobs

    def size(self, digest: Digest) -> int:
        return len(self._blob(digest))

    def read(self, digest: Digest, start: int, length: int) -> bytes:
        return self._blob(digest)[start : start + length]

    def delete(self, digest: Digest) -> None:
        self._blobs.pop(digest, None)

    def copy_id(self, digest: Digest) -> str | None:
        data = self._blobs.get(digest)
        return None if data is None else str(id(data))

    def _move_aside(self, digest: Digest, seen: str) -> bool:
        with self._lock:
            if self.copy_id(digest) != seen:
                return False
            self._aside.append((digest, self._blobs.pop(digest)))
        return True

    def digests(self) -> Iterator[Digest]:
        return iter(tuple(self._blobs))

    def staging(self, key: str) -> AbstractContextManager[StagedBlob]:
        with self._lock:
            if key in self._held:
                raise Conflict("another process is sending this file; wait a moment, then continue")
            self._held.add(key)
        data = self._stagings.setdefault(key, bytearray())
        return _StagedBytes(key, data, self._hashers, self)

    def staged_size(self, key: str) -> int:
        return len(self._stagings.get(key, b""))

    def is_held(self, key: str) -> bool:
        return key in self._held

    def last_write(self, key: str) -> datetime | None:
        return self._written.get(key)

    def stagings(self) -> Iterator[str]:
        return iter(tuple(self._stagings))

    def require_room(self, size: int) -> None:
        """Does nothing: the free size of memory is unknown."""

    def publish(self, key: str, digest: Digest) -> None:
        """Publishes a staging as a blob."""
        self._blobs[digest] = bytes(self._stagings.pop(key))
        self._written.pop(key, None)

    def wrote(self, key: str) -> None:
        self._written[key] = datetime.now(UTC)

    def drop(self, key: str) -> None:
        self._stagings.pop(key, None)
        self._written.pop(key, None)

    def release(self, key: str) -> None:
        self._held.discard(key)

    def _blob(self, digest: Digest) -> bytes:
        try:
            return self._blobs[digest]
        except KeyError:
            raise blob_not_found(digest) from None


class _StagedBytes(StagedBlob):
    """A held byte array."""

    def __init__(self, key: str, data: bytearray, hashers: Hashers, store: MemoryBlobs) -> None:
        super().__init__(key, len(data), hashers)
        self._data = data
        self._store = store

    def _write(self, piece: memoryview) -> None:
        self._data += piece
        self._store.wrote(self.key)

    def _settle(self) -> None:
        """Nothing to wait for: writes are synchronous."""

    def _truncate(self, offset: int) -> None:
        del self._data[offset:]

    def _read(self, start: int, length: int) -> bytes:
        return bytes(self._data[start : start + length])

    def _publish(self, digest: Digest) -> None:
        self._store.publish(self.key, digest)

    def _discard(self) -> None:
        self._store.drop(self.key)

    def _release(self) -> None:
        self._store.release(self.key)
