"""Evicts entries to make room for new ones. Leased entries are never evicted.

Evictions of different processes run one after the other, under a lock; a partial download counts with its
full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adaptry.core.errors import StorageFull
from adaptry.core.files.locks import FileLock
from adaptry.integrations.serving.cache.layout import (
    FILES,
    CacheEntry,
    CacheLayout,
    EntryMetadata,
    eviction_order,
)


@dataclass(frozen=True, slots=True)
class Evictor:
    """Keeps a cache within `size` bytes; None is no limit but the disk's."""

    layout: CacheLayout
    size: int | None

    def reserve(self, partial: Path, metadata: EntryMetadata) -> None:
        """Evicts what is needed for a version and creates its partial folder. Raises `StorageFull` if leased
        entries take up too much."""
        with FileLock.acquire_exclusive(self.layout.eviction_lock):
            self.layout.sweep()
            if self.size is not None and not partial.is_dir():
                self._make_room(metadata.size)
            (partial / FILES).mkdir(parents=True, exist_ok=True)
            metadata.write(partial)

    def shrink(self, size: int) -> tuple[CacheEntry, ...]:
        """Evicts entries until `size` bytes or only leased ones remain. Returns those evicted, in order."""
        with FileLock.acquire_exclusive(self.layout.eviction_lock):
            self.layout.sweep()
            return tuple(self._evict(size))

    def _make_room(self, needed: int) -> None:
        assert self.size is not None
        if needed <= self.size:
            for _ in self._evict(self.size - needed):
                pass
        left = sum(entry.size for entry in self.layout.entries())
        if left + needed > self.size:
            raise StorageFull(
                f"{needed:,} bytes do not fit into the cache in {self.layout.root}: it may take"
                f" {self.size:,}, and {left:,} are in use; allow it more (ADAPTRY_CACHE_SIZE), or serve fewer"
                " adapters at once"
            )

    def _evict(self, size: int) -> Iterator[CacheEntry]:
        entries = eviction_order(self.layout.entries())
        total = sum(entry.size for entry in entries)
        for entry in entries:
            if total <= size:
                return
            if self._remove(entry):
                total -= entry.size
                yield entry

    def _remove(self, entry: CacheEntry) -> bool:
        """Removes an entry unless it is leased. Returns whether it was removed."""
        lease = FileLock.try_exclusive(self.layout.lease_file(entry.digest))
        if lease is None:
            return False
        self.layout.discard(
            self.layout.partial_folder(entry.digest)
            if entry.is_partial
            else self.layout.entry_folder(entry.digest)
        )
        if fill_lock := FileLock.try_exclusive(self.layout.fill_lock(entry.digest)):
            fill_lock.remove()
        lease.remove()
        return True
