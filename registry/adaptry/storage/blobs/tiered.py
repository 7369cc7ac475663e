"""A remote store with a local file cache: blobs that were read once are read from this machine's disk.

Only the remote store decides which blobs exist. Bytes are verified before they enter the cache; when space is
needed, the least recently read are removed first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, CorruptData, DigestMismatch, NotFound, Unavailable
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.blobs.store import BlobStore, StagedBlob, UploadUrl

_MIN_AGE = 600.0
"""Seconds for which a read blob stays even in a full cache, since a caller may have its path."""


class TieredBlobs(BlobStore):
    """`store`, with up to `limit` bytes of it cached in `folder`. Other processes may use the same folder."""

    is_on_this_machine = False

    def __init__(self, store: BlobStore, folder: Path, limit: int) -> None:
        super().__init__()
        self.store = store
        self.limit = limit
        self._cache = LocalBlobs(folder)
        for key in tuple(self._cache.stagings()):
            with suppress(Conflict), self._cache.staging(key) as left_behind:
                left_behind.discard()

    def has(self, digest: Digest) -> bool:
        return self.store.has(digest)

    def size(self, digest: Digest) -> int:
        return self._nearest(digest).size(digest)

    def read(self, digest: Digest, start: int, length: int) -> bytes:
        return self._nearest(digest).read(digest, start, length)

    def chunks(self, digest: Digest, start: int = 0) -> Iterator[bytes]:
        near = self._nearest(digest)
        coming = near.chunks(digest, start)
        return coming if start or near is self._cache else self._kept(digest, coming)

    def descriptor(self, digest: Digest) -> AbstractContextManager[int | None]:
        return self._nearest(digest).descriptor(digest)

    def path_of(self, digest: Digest) -> Path:
        """A file with the blob, fetched if missing, that stays for at least ten minutes.

        Raises `NotFound`, `CorruptData`, `StorageFull`.
        """
        if not self._is_cached(digest):
            try:
                self._cache.put(digest, self.store.chunks(digest))
            except DigestMismatch as error:
                raise CorruptData(
                    f"the stored bytes {digest.brief} have changed; restore them from a copy"
                ) from error
            self._make_room()
        return self._cache.path_of(digest)

    def delete(self, digest: Digest) -> None:
        self.store.delete(digest)
        self._cache.delete(digest)

    @property
    def original(self) -> BlobStore:
        return self.store

    def drop_damaged_copy(self, digest: Digest) -> bool:
        """Deletes a blob's cached copy if its bytes have changed; returns whether it did. Does not read the
        store.
        """
        try:
            if self._cache.is_sound(digest):
                return False
        except NotFound:
            return False
        self._cache.delete(digest)
        return True

    def sound_copy(self, digest: Digest) -> Iterator[bytes] | None:
        """The cached copy of a blob, if there is one and its bytes are intact."""
        try:
            return self._cache.chunks(digest) if self._cache.is_sound(digest) else None
        except NotFound:
            return None

    def has_damaged_copy(self, digest: Digest) -> bool:
        """Whether the cache has a copy of the blob whose bytes have changed."""
        try:
            return not self._cache.is_sound(digest)
        except NotFound:
            return False

    def copy_id(self, digest: Digest) -> str | None:
        return self.store.copy_id(digest)

    def set_aside(self, digest: Digest) -> bool:
        self.drop_damaged_copy(digest)
        return self.store.set_aside(digest)

    def _move_aside(self, digest: Digest, seen: str) -> bool:
        raise AssertionError("only the underlying store moves its copies aside")

    def digests(self) -> Iterator[Digest]:
        return self.store.digests()

    def staging(self, key: str) -> AbstractContextManager[StagedBlob]:
        return self.store.staging(key)

    def staged_size(self, key: str) -> int:
        return self.store.staged_size(key)

    def is_held(self, key: str) -> bool:
        return self.store.is_held(key)

    def last_write(self, key: str) -> datetime | None:
        return self.store.last_write(key)

    def stagings(self) -> Iterator[str]:
        return self.store.stagings()

    def require_room(self, size: int) -> None:
        self.store.require_room(size)

    def tidy(self) -> int:
        return self.store.tidy()

    def download_url(self, digest: Digest, filename: str, seconds: int) -> str | None:
        return self.store.download_url(digest, filename, seconds)

    def upload_url(self, key: str, start: int, size: int, seconds: int) -> UploadUrl | None:
        return self.store.upload_url(key, start, size, seconds)

    def _nearest(self, digest: Digest) -> BlobStore:
        return self._cache if self._is_cached(digest) else self.store

    def _is_cached(self, digest: Digest) -> bool:
        """Whether the blob is cached; also marks it as just read."""
        try:
            os.utime(self._cache.path_of(digest))
        except (NotFound, OSError):
            return False
        return True

    def _kept(self, digest: Digest, coming: Iterator[bytes]) -> Iterator[bytes]:
        """Yields the pieces, and caches the blob once all pieces were read; a cache that cannot be written is
        ignored.
        """
        with self._cache.staging(self.new_key()) as staged:
            is_kept = True
            try:
                for piece in coming:
                    is_kept = is_kept and self._keep(staged, piece)
                    yield piece
                if is_kept:
                    with suppress(
                        DigestMismatch, Unavailable
                    ):  # the reader verifies the bytes and raises the error
                        staged.publish(digest)
                        self._make_room()
            finally:
                staged.discard()

    def _keep(self, staged: StagedBlob, piece: bytes) -> bool:
        if staged.offset + len(piece) > self.limit:
            return False
        try:
            staged.append(staged.offset, [piece])
        except Unavailable:
            return False
        return True

    def _make_room(self) -> None:
        found = []
        for digest in self._cache.digests():
            with suppress(NotFound, FileNotFoundError):
                seen = self._cache.path_of(digest).stat()
                found.append((seen.st_mtime, seen.st_size, digest))
        total = sum(size for _, size, _ in found)
        now = time.time()
        for read_at, size, digest in sorted(found):
            if total <= self.limit:
                return
            if now - _MIN_AGE < read_at <= now + _MIN_AGE:
                continue
            self._cache.delete(digest)  # including one read in the "future": the clock was ahead then
            total -= size
