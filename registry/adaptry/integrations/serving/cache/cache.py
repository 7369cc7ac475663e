"""The worker's cache: adapters in folders named by digest, shared by every process on the machine.

`Cache.acquire` leases an entry: a folder with verified files that was published by one rename and is not
evicted until the lease is released or the process ends. The content of a digest never changes, so an engine
that caches by path never serves an older version. One process downloads while the others wait; after a crash
the next one resumes the partial download. A recalled version is deleted and not fetched again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import Unavailable, Withdrawn
from adaptry.core.files.durable import write_error
from adaptry.core.files.locks import FileLock
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import Ref
from adaptry.integrations.serving.cache import recall_store
from adaptry.integrations.serving.cache.download import CacheFill, is_intact
from adaptry.integrations.serving.cache.eviction import Evictor
from adaptry.integrations.serving.cache.layout import (
    FILES,
    CacheEntry,
    CacheLayout,
    eviction_order,
    mark_used,
    read_metadata,
)
from adaptry.integrations.serving.cache.leases import CacheLeases
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import require_usable


@dataclass(frozen=True, slots=True)
class CachedAdapter:
    """A leased entry: the folder of its files, its digest, and the version that was requested."""

    path: Path
    digest: Digest
    version: VersionInfo


class Cache:
    """The cache in the folder `root`, which is created. Safe for many threads, and `root` for many processes.

    `size` is the limit in bytes; None is no limit. Leased entries count towards it and are never evicted. An
    object holds one lease per digest, however often it is acquired; the lease ends with `release`, `close`,
    or the process.
    """

    def __init__(self, root: Path | str, size: int | None = None, retry: RetryPolicy = DEFAULT_RETRY) -> None:
        self.root = Path(root).expanduser().absolute()
        self.size = size
        self._retry = retry
        self._layout = CacheLayout(self.root)
        self._leases = CacheLeases(self._layout)

    def acquire(self, registry: Registry, ref: Ref | str, progress: Progress = no_progress) -> CachedAdapter:
        """Resolves `ref` with the registry (no stale alias), fetches it if needed, and leases it.

        Raises `Withdrawn` if the version is quarantined, revoked, or recalled here; `StorageFull` if evicting
        every unleased entry does not free enough space; `DigestMismatch`; and the registry's errors.
        """
        detail = registry.versions.detail(Ref.parse(ref) if isinstance(ref, str) else ref)
        require_usable(detail.version)
        evictor = Evictor(self._layout, self.size)
        fill = CacheFill(self._layout, evictor, registry, detail, progress, self._retry)
        was_fetched = False

        def ensure() -> bool:
            nonlocal was_fetched
            was_fetched = fill.ensure_present()
            return True

        cached = self._lease_if_present(detail.version, ensure)
        assert cached is not None
        if was_fetched:
            with contextlib.suppress(Unavailable):  # the download counter is best effort
                registry.versions.count_download(Ref.of_revision(cached.version.name, cached.digest))
        return cached

    def acquire_local(self, digest: Digest) -> CachedAdapter | None:
        """Leases the entry of this digest if it is complete and not recalled here; else None. The registry is
        not asked, so a later withdrawal goes unnoticed."""
        folder = self._layout.entry_folder(digest)
        metadata = read_metadata(folder)
        if metadata is None or self.recall_reason(digest):
            return None
        return self._lease_if_present(metadata.version, lambda: is_intact(folder))

    def release(self, digest: Digest) -> None:
        """Ends this object's lease, so that the entry may be evicted. Idempotent."""
        self._leases.release(digest)

    def close(self) -> None:
        """Ends all leases."""
        self._leases.release_all()

    def remove(self, digest: Digest) -> bool:
        """Deletes files, leased or not; the next `acquire` fetches them again. Returns whether any were."""
        self._prepare()
        folder, partial = self._layout.entry_folder(digest), self._layout.partial_folder(digest)
        was_here = folder.is_dir() or partial.is_dir()
        self._layout.discard(folder)
        if idle := FileLock.try_exclusive(self._layout.fill_lock(digest)):
            with idle:  # not held: nobody is downloading this entry now
                self._layout.discard(partial)
        self.release(digest)
        return was_here

    def recall(self, digest: Digest, reason: str) -> bool:
        """Deletes the files and refuses the digest until `readmit`, in every process and across restarts; a
        download under way stops. Returns whether there were any files."""
        self._prepare()
        was_here = False
        try:
            recall_store.recall(self._layout, digest, reason)
        except Unavailable:
            was_here = self.remove(digest)  # a full disk: deleting first may free space for the recall file
            recall_store.recall(self._layout, digest, reason)
        return self.remove(digest) or was_here

    def readmit(self, digest: Digest) -> None:
        """Reverses a recall, so that the version may be fetched again. No effect if it is not recalled."""
        recall_store.readmit(self._layout, digest)

    def recall_reason(self, digest: Digest) -> str | None:
        """When and why the digest was recalled here; None if it is not recalled."""
        return recall_store.recall_reason(self._layout, digest)

    def entries(self) -> tuple[CacheEntry, ...]:
        """All entries in eviction order: partial downloads first, then least recently used."""
        return tuple(eviction_order(self._layout.entries()))

    def is_leased(self, digest: Digest) -> bool:
        """Whether any process on this machine holds a lease."""
        if not self._layout.lease_file(digest).exists():
            return False
        lease = FileLock.try_exclusive(self._layout.lease_file(digest))
        if lease is not None:
            lease.release()
        return lease is None

    def shrink(self, size: int) -> tuple[CacheEntry, ...]:
        """Evicts entries until `size` bytes or only leased ones remain. Returns those evicted, in order."""
        self._prepare()
        return Evictor(self._layout, self.size).shrink(size)

    def _lease_if_present(self, version: VersionInfo, ensure: Callable[[], bool]) -> CachedAdapter | None:
        """Leases the version if `ensure` returns True; else returns None."""
        digest, folder = version.digest, self._layout.entry_folder(version.digest)
        self._prepare()
        with self._leases.hold(digest) as keep:
            recall_store.require_not_recalled(self._layout, version)
            try:
                is_here = ensure()
            except OSError as error:
                raise write_error(error, folder) from error
            if not is_here:
                return None
            self._require_not_recalled_since(version)
            mark_used(folder)
            keep()
        return CachedAdapter(folder / FILES, digest, version)

    def _require_not_recalled_since(self, version: VersionInfo) -> None:
        """Discards an entry that was recalled while it was being filled: the recall found no files yet."""
        try:
            recall_store.require_not_recalled(self._layout, version)
        except Withdrawn:
            self._layout.discard(self._layout.entry_folder(version.digest))
            raise

    def _prepare(self) -> None:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, self.root) from error
