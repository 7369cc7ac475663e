"""A cache of adapters on a machine that serves them, in folders named by digest, shared by every process there.

`path_of` gives a folder whose files were verified, that appeared whole by a rename, and that is not evicted while
the process that asked lives or until it lets go. What a digest names never changes, so no engine that keeps anything by
path can answer from an older version. One process downloads and the others wait; one that dies leaves what arrived,
and the next goes on from there. What was recalled is removed and not fetched again.
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
from adaptry.core.refs import ByDigest, Ref
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
    """An adapter that is here: the folder of its files, its digest, and the version that was asked for."""

    path: Path
    digest: Digest
    version: VersionInfo


class Cache:
    """The cache in the folder `root`, which is made. One may be used by many threads, and `root` by many processes.

    `size` is how many bytes it may take; None is no limit. What is leased counts, and is never evicted: leases are this
    object's, one for each digest however often it was asked for, and end with `release`, `close`, or the process.
    """

    def __init__(self, root: Path | str, size: int | None = None, retry: RetryPolicy = DEFAULT_RETRY) -> None:
        self.root = Path(root).expanduser().absolute()
        self.size = size
        self._persistence = retry
        self._layout = CacheLayout(self.root)
        self._leases = CacheLeases(self._layout)

    def acquire(self, registry: Registry, ref: Ref | str, progress: Progress = no_progress) -> CachedAdapter:
        """The adapter that `ref` means now, leased. The registry is asked every time, so an alias is never stale.

        Raises `Withdrawn` for what is quarantined, revoked, or was recalled here; `StorageFull` where neither the limit
        nor the disk has room beside what is in use; `DigestMismatch`, and whatever asking the registry raises.
        """
        detail = registry.detail(Ref.parse(ref) if isinstance(ref, str) else ref)
        require_usable(detail.version)
        evictor = Evictor(self._layout, self.size)
        filling = CacheFill(self._layout, evictor, registry, detail, progress, self._persistence)
        was_fetched = False

        def ensure() -> bool:
            nonlocal was_fetched
            was_fetched = filling.ensure_present()
            return True

        kept = self._lease_if_present(detail.version, ensure)
        assert kept is not None
        if was_fetched:
            with contextlib.suppress(Unavailable):  # it is here, counted or not
                registry.count_download(Ref(kept.version.name, ByDigest(kept.digest.hex)))
        return kept

    def acquire_local(self, digest: Digest) -> CachedAdapter | None:
        """The adapter of this digest, leased, if it is here whole and not recalled. No registry is asked, so what became
        of it meanwhile is not known."""
        folder = self._layout.entry_folder(digest)
        metadata = read_metadata(folder)
        if metadata is None or self.recall_reason(digest):
            return None
        return self._lease_if_present(metadata.version, lambda: is_intact(folder))

    def release(self, digest: Digest) -> None:
        """Ends this object's lease: the folder may go when room is needed. Again is no error."""
        self._leases.release(digest)

    def close(self) -> None:
        """Ends all leases."""
        self._leases.release_all()

    def remove(self, digest: Digest) -> bool:
        """Removes the files, leased or not; who asks again has them fetched again. Whether there were any."""
        self._prepare()
        folder, partial = self._layout.entry_folder(digest), self._layout.partial_folder(digest)
        was_here = folder.is_dir() or partial.is_dir()
        self._layout.discard(folder)
        if idle := FileLock.try_exclusive(self._layout.fill_lock(digest)):
            with idle:  # else someone fills it: what they fill is not what was here
                self._layout.discard(partial)
        self.release(digest)
        return was_here

    def recall(self, digest: Digest, reason: str) -> bool:
        """A recall: as `remove`, and the digest is refused until `readmit`, in every process and after a restart; whoever
        fetches it now stops. Whether there were any files."""
        self._prepare()
        was_here = False
        try:
            recall_store.recall(self._layout, digest, reason)
        except Unavailable:
            was_here = self.remove(digest)  # that may make room for the mark, and must be done anyway
            recall_store.recall(self._layout, digest, reason)
        return self.remove(digest) or was_here

    def readmit(self, digest: Digest) -> None:
        """Takes a recall back: it may be fetched again. What was not recalled is none the worse."""
        recall_store.readmit(self._layout, digest)

    def recall_reason(self, digest: Digest) -> str | None:
        """When it was recalled here, and why; None where it was not."""
        return recall_store.recall_reason(self._layout, digest)

    def entries(self) -> tuple[CacheEntry, ...]:
        """What is here, in the order in which it goes: what has not all arrived, then what was not used for longest."""
        return tuple(eviction_order(self._layout.entries()))

    def is_leased(self, digest: Digest) -> bool:
        """Whether any process on this machine uses it."""
        if not self._layout.lease_file(digest).exists():
            return False
        lease = FileLock.try_exclusive(self._layout.lease_file(digest))
        if lease is not None:
            lease.release()
        return lease is None

    def shrink(self, size: int) -> tuple[CacheEntry, ...]:
        """Evicts until `size` bytes or fewer are left, or only what is in use; what went, in turn."""
        self._prepare()
        return Evictor(self._layout, self.size).shrink(size)

    def _lease_if_present(self, version: VersionInfo, ensure: Callable[[], bool]) -> CachedAdapter | None:
        """The version, leased from now on, if `ensure` finds it here."""
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
        """A recall that came between its look and its removal found nothing to remove yet."""
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
