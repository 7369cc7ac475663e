"""Evicts entries to make room for new ones. Entries that processes lease or engines hold are never evicted.

Evictions of different processes run one after the other, under a lock; a partial download counts with its
full size. Stacks count too; one that no process uses is deleted at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adaptry.core.errors import StorageFull
from adaptry.core.files.locks import FileLock
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.cache import engine_holds
from adaptry.integrations.serving.cache.layout import (
    FILES,
    CacheEntry,
    CacheLayout,
    EntryMetadata,
    eviction_order,
)
from adaptry.integrations.serving.cache.space_users import space_users


@dataclass(frozen=True, slots=True)
class Evictor:
    """Keeps a cache within `size` bytes. If `size` is None, the disk is the only limit."""

    layout: CacheLayout
    size: int | None

    def reserve(self, partial: Path, metadata: EntryMetadata) -> None:
        """Evicts what is needed for a version and creates its partial folder. Raises `StorageFull` if entries
        in use take up too much."""
        with FileLock.acquire_exclusive(self.layout.eviction_lock):
            self._sweep()
            if self.size is not None and not partial.is_dir():
                self._make_room(metadata.size)
            (partial / FILES).mkdir(parents=True, exist_ok=True)
            metadata.write(partial)

    def reserve_stack(self, key: str, size: int) -> None:
        """Evicts what is needed for a stack of at most `size` bytes, which counts from now on. Raises
        `StorageFull` if entries in use take up too much."""
        with FileLock.acquire_exclusive(self.layout.eviction_lock):
            self._sweep()
            if self.size is not None:
                self._make_room(size)
            self.layout.stacks.reserve(key, size)

    def shrink(self, size: int) -> tuple[CacheEntry, ...]:
        """Evicts entries until `size` bytes or only entries in use remain. Returns the evicted ones, in
        order. A folder in which nothing was ever cached is left as it is."""
        if not self.layout.eviction_lock.exists():
            return ()
        with FileLock.acquire_exclusive(self.layout.eviction_lock):
            self._sweep()
            return tuple(self._evict(size))

    def _make_room(self, needed: int) -> None:
        assert self.size is not None
        if needed <= self.size:
            for _ in self._evict(self.size - needed):
                pass
        left = self._size()
        if left + needed > self.size:
            raise StorageFull(
                f"{needed:,} bytes do not fit into the cache in {self.layout.root}: its limit is"
                f" {self.size:,}, and {left:,} are in use{self.users_sentence()}; raise the limit"
                " (ADAPTRY_CACHE_SIZE), or serve fewer adapters at once"
            )

    def users_sentence(self) -> str:
        """The engines and processes that keep entries from being evicted, in brackets."""
        users = "; ".join(user.sentence() for user in space_users(self.layout))
        return f" ({users})" if users else ""

    def _sweep(self) -> None:
        """Removes ended holds, leftovers of crashes, and unused recalled entries."""
        engine_holds.sweep(self.layout)
        self.layout.sweep()
        self.layout.stacks.sweep()
        for entry in list(self.layout.entries()):
            if self.layout.recall_file(entry.digest).exists():
                self._remove(entry)

    def _evict(self, size: int) -> Iterator[CacheEntry]:
        total = self._size()
        for entry in eviction_order(self.layout.entries()):
            if total <= size:
                return
            if self._remove(entry):
                total -= entry.size
                yield entry

    def _size(self) -> int:
        return sum(entry.size for entry in self.layout.entries()) + sum(self.layout.stacks.sizes())

    def _remove(self, entry: CacheEntry) -> bool:
        """Removes an entry unless it is in use. Returns whether it was removed."""
        folder = (
            self.layout.partial_folder(entry.digest)
            if entry.is_partial
            else self.layout.entry_folder(entry.digest)
        )
        if not self.layout.discard_unused(entry.digest, folder):
            return False
        if fill_lock := FileLock.try_exclusive(self.layout.fill_lock(entry.digest)):
            fill_lock.remove()
        return True
