"""The worker's cache: adapters in folders named by digest, shared by every process on the machine.

`Cache.acquire` leases an entry: a folder with verified files that was published by one rename and is not
evicted until the lease is released or the process ends. `Cache.hold` keeps it for an engine, which may read
it again after that process has ended (`engine_holds`). The content of a digest never changes, so an engine
that caches by path never serves an older version. One process downloads while the others wait; after a crash
the next one resumes the partial download. A recalled version is not handed out again, and its files are
deleted as soon as nothing may read them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import Unavailable, Withdrawn
from adaptry.core.files.durable import write_error
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import Ref
from adaptry.integrations.serving.cache import engine_holds, recall_store
from adaptry.integrations.serving.cache.download import CacheFill, is_intact
from adaptry.integrations.serving.cache.engine_holds import EngineAddress, EngineHold
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
from adaptry.integrations.serving.cache.space_users import SpaceUser, is_leased, space_users
from adaptry.integrations.serving.cache.stack_folders import StackFolders
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
    """The cache in the folder `root`, which is created. Thread-safe; many processes may share `root`.

    `size` is the limit in bytes; None is no limit. Leased and held entries count towards it and are never
    evicted, nor are stacks in use. A `Cache` has one lease per digest, however often it is acquired; the
    lease ends with `release`, `close`, or the process.
    """

    def __init__(self, root: Path | str, size: int | None = None, retry: RetryPolicy = DEFAULT_RETRY) -> None:
        self.root: Path = Path(root).expanduser().absolute()
        self.size = size
        self._retry = retry
        self._layout = CacheLayout(self.root)
        self._leases = CacheLeases(self._layout)
        self.stacks: StackFolders = StackFolders(Evictor(self._layout, size))

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
        """Ends this object's lease, so that the entry may be evicted; it is deleted if it is recalled.
        Idempotent."""
        self._leases.release(digest)
        self._remove_if_recalled(digest)

    def hold(self, digest: Digest, engine: EngineAddress, name: str) -> None:
        """Keeps an entry for an engine that is about to load it under `name`, until `release_hold`, even if
        this process ends. The caller must have a lease. Raises `StorageFull`, `Unavailable`."""
        self._prepare()
        metadata = read_metadata(self._layout.entry_folder(digest))
        engine_holds.hold(
            self._layout, digest, engine, metadata.version.label if metadata else digest.brief, name
        )

    def release_hold(self, digest: Digest, engine: EngineAddress) -> None:
        """Ends an engine's hold, because the engine no longer has the version. A recalled entry is deleted.
        Idempotent.
        """
        engine_holds.release(self._layout, digest, engine.key)
        self._remove_if_recalled(digest)

    def holds_of(self, engine: EngineAddress) -> Mapping[Digest, EngineHold]:
        """The versions that are kept for an engine."""
        every = engine_holds.all_holds(self._layout)
        return {digest: found for digest, key, found in every if key == engine.key}

    def holds(self, digest: Digest) -> tuple[EngineHold, ...]:
        """The engines that a version is kept for."""
        return engine_holds.find(self._layout, digest)

    def forget_engine(self, address: str) -> tuple[Digest, ...]:
        """Ends all holds of the engine at `address` (`EngineHold.address`), which no longer exists. Returns
        the versions."""
        every = engine_holds.all_holds(self._layout)
        gone = [(digest, key) for digest, key, found in every if found.is_of(address)]
        for digest, key in gone:
            engine_holds.release(self._layout, digest, key)
            self._remove_if_recalled(digest)
        return tuple(digest for digest, _ in gone)

    def users(self) -> tuple[SpaceUser, ...]:
        """The engines and processes that keep entries from being evicted."""
        return space_users(self._layout)

    def close(self) -> None:
        """Ends all leases."""
        for digest in self._leases.release_all():
            self._remove_if_recalled(digest)

    def remove(self, digest: Digest) -> bool:
        """Ends this object's lease and deletes the files, unless another process leases them or an engine
        holds them. The next `acquire` fetches them again. Returns whether files were deleted."""
        self._prepare()
        self._leases.release(digest)
        self.stacks.discard_unused(digest)
        folder, partial = self._layout.entry_folder(digest), self._layout.partial_folder(digest)
        was_here = folder.is_dir() or partial.is_dir()
        return self._layout.discard_unused(digest, folder, partial) and was_here

    def recall(self, digest: Digest, reason: str) -> bool:
        """Refuses the digest until `unblock`, in every process and across restarts, and deletes the files; a
        running download stops. Files that another process leases or an engine holds are deleted when the
        last lease and hold have ended. Returns whether files were deleted."""
        self._prepare()
        was_here = False
        try:
            recall_store.recall(self._layout, digest, reason)
        except Unavailable:
            was_here = self.remove(digest)  # a full disk: deleting first may free space for the recall file
            recall_store.recall(self._layout, digest, reason)
        return self.remove(digest) or was_here

    def unblock(self, digest: Digest) -> None:
        """Reverses a recall, so that the version may be fetched again. No effect if it is not recalled."""
        recall_store.unblock(self._layout, digest)

    def recall_reason(self, digest: Digest) -> str | None:
        """A text with the time and reason of the digest's recall here; None if it is not recalled."""
        return recall_store.recall_reason(self._layout, digest)

    def has_files(self, digest: Digest) -> bool:
        """Whether the files of a version, recalled or not, or a stack with its weights are here."""
        return self._layout.entry_folder(digest).is_dir() or self.stacks.has_part(digest)

    def entries(self) -> tuple[CacheEntry, ...]:
        """All entries in eviction order: partial downloads first, then least recently used."""
        return tuple(eviction_order(self._layout.entries()))

    def is_leased(self, digest: Digest) -> bool:
        """Whether any process on this machine has a lease."""
        return is_leased(self._layout, digest)

    def shrink(self, size: int) -> tuple[CacheEntry, ...]:
        """Evicts entries until `size` bytes or only entries in use remain. Returns the evicted ones, in
        order."""
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

    def _remove_if_recalled(self, digest: Digest) -> None:
        if self._layout.recall_file(digest).exists():
            self._layout.discard_unused(digest, self._layout.entry_folder(digest))

    def _prepare(self) -> None:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, self.root) from error
