"""Room in a cache: what may come, and what goes for it. What anyone uses never goes.

Two processes that need room at once do so one after the other, and what is still on its way counts in full.
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
    """The room on a shelf: `size` bytes; None is no limit but the disk's."""

    layout: CacheLayout
    size: int | None

    def reserve(self, partial: Path, metadata: EntryMetadata) -> None:
        """Makes room for a version and a folder that it arrives in. Raises `StorageFull` where what is in use leaves none."""
        with FileLock.acquire_exclusive(self.layout.eviction_lock):
            self.layout.sweep()
            if self.size is not None and not partial.is_dir():
                self._make_room(metadata.size)
            (partial / FILES).mkdir(parents=True, exist_ok=True)
            metadata.write(partial)

    def shrink(self, size: int) -> tuple[CacheEntry, ...]:
        """Evicts until `size` bytes or fewer are left, or only what is in use; what went, in turn."""
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
                f"{needed:,} bytes do not fit into the cache in {self.layout.root}: it may take {self.size:,}, and {left:,} "
                "are in use; allow it more (ADAPTRY_CACHE_SIZE), or serve fewer adapters at once"
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
        """Whether nobody used it, so that it went."""
        lease = FileLock.try_exclusive(self.layout.lease_file(entry.digest))
        if lease is None:
            return False
        self.layout.discard(
            self.layout.partial_folder(entry.digest)
            if entry.is_partial
            else self.layout.entry_folder(entry.digest)
        )
        if filling := FileLock.try_exclusive(self.layout.fill_lock(entry.digest)):
            filling.remove()
        lease.remove()
        return True
