"""Stores several small files of an adapter together.

They are in memory, and are flushed to disk together, with only two waits for any number of files. The
caller's transaction records their owner, so no upload sessions are needed.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog import adapters, damage, files, pending_deletes
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.local.context import RegistryContext, require_no_base
from adaptry.storage.local.quotas import require_bytes


@dataclass(frozen=True)
class SmallFiles:
    """Files for the adapter `name`; their digests are those of their bytes."""

    context: RegistryContext
    name: AdapterName
    data: dict[Digest, bytes]

    def require_free_name(self, tx: Reads) -> None:
        """Raises `Conflict` if the adapter, which does not exist yet, may not have this name."""
        adapters.require_distinct_name(tx, self.name)
        require_no_base(tx, self.name)

    def lacking(self, tx: Reads) -> dict[Digest, bytes]:
        """The files that are not stored for the adapter, or are damaged. Raises `QuotaExceeded`, `Busy` and
        `Unavailable` if they may not be stored.
        """
        owned = files.sizes(tx, self.name, self.data)
        found = {digest: data for digest, data in self.data.items() if not self._is_sound(tx, owned, digest)}
        sizes = {digest: len(data) for digest, data in found.items()}
        require_room(self.context, tx, self.name, sizes, owned)
        return found

    def add_ownership(self, tx: Transaction, lacking: dict[Digest, bytes]) -> None:
        """Makes the adapter the owner of the stored bytes. Raises the errors of `add_owner`."""
        add_owner(self.context, tx, self.name, {digest: len(data) for digest, data in lacking.items()})

    def _is_sound(self, tx: Reads, owned: dict[Digest, int], digest: Digest) -> bool:
        if digest not in owned or damage.damage_reason(tx, digest) is not None:
            return False
        try:
            return self.context.blobs.original.size(digest) == owned[digest]
        except NotFound:
            return False


def store_files(context: RegistryContext, lacking: Mapping[Digest, bytes]) -> None:
    """Stores files of one or more adapters on the disk. Raises `StorageFull`, `ReadOnly`."""
    if not lacking:
        return
    context.catalog.require_writable()
    context.upload_cleanup.run_once(context.catalog, context.blobs, context.clock())
    context.blobs.require_room(sum(map(len, lacking.values())))
    with context.catalog.read_prepared() as tx:
        damaged = [digest for digest in lacking if damage.damage_reason(tx, digest) is not None]
    for digest in damaged:
        context.blobs.set_aside(digest)  # kept for inspection, as for any upload
    context.blobs.put_all(lacking)


def add_owner(
    context: RegistryContext, tx: Transaction, name: AdapterName, stored: Mapping[Digest, int]
) -> None:
    """Makes an adapter the owner of blobs, given with their sizes, that had no owner until now. Raises
    `Unavailable` if a sweep deleted them, `QuotaExceeded`, `Busy`.
    """
    require_room(context, tx, name, stored, files.sizes(tx, name, stored))
    for digest, size in stored.items():
        # A sweep starts its deletions in a transaction, so none can start from here on.
        if not context.blobs.original.has(digest):
            raise _deleting()
        files.add_owned(tx, name, digest, size, context.identity.name)
        damage.clear_damage(tx, digest)


def require_room(
    context: RegistryContext,
    tx: Reads,
    name: AdapterName,
    lacking: Mapping[Digest, int],
    owned: Mapping[Digest, int],
) -> None:
    """Raises `QuotaExceeded`, `Busy` and `Unavailable` if an adapter may not have these files now."""
    if not lacking:
        return
    new = sum(size for digest, size in lacking.items() if digest not in owned)
    require_bytes(context, tx, name.namespace, new)
    if any(pending_deletes.is_deleting(tx, digest) for digest in lacking):
        raise _deleting()


def _deleting() -> Unavailable:
    return Unavailable("these bytes are being deleted; wait a moment and send them again")
