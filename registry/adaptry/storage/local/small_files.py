"""The part of a local registry that stores several small files of an adapter together.

They are in memory, and wait for the disk together: only twice for any number of files. The caller's
transaction records their owner, so no upload sessions are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound, Unavailable
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog import adapters, damage, files, pending_deletes
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import PreparedReads
from adaptry.storage.local.context import RegistryContext, require_no_base
from adaptry.storage.local.quotas import require_bytes


@dataclass(frozen=True)
class SmallFiles:
    """Files for the adapter `name`; their digests are those of their bytes."""

    context: RegistryContext
    name: AdapterName
    data: dict[Digest, bytes]

    def require_free_name(self, tx: Reads) -> None:
        """Raises `Conflict` if the adapter, which does not exist, may not have its name."""
        if isinstance(tx, PreparedReads):
            with self.context.catalog.read() as session:
                self.require_free_name(session)
            return
        adapters.require_distinct_name(tx, self.name)
        require_no_base(tx, self.name)

    def lacking(self, tx: Reads) -> dict[Digest, bytes]:
        """The files that are not stored for the adapter, or damaged. Raises `QuotaExceeded`, `Busy` and
        `Unavailable` if they may not be.
        """
        owned = files.sizes(tx, self.name, self.data)
        found = {digest: data for digest, data in self.data.items() if not self._is_sound(tx, owned, digest)}
        self._require_room(tx, found, owned)
        return found

    def store(self, lacking: dict[Digest, bytes]) -> None:
        """Puts the bytes on the disk. Raises `StorageFull`, `ReadOnly`."""
        if not lacking:
            return
        self.context.catalog.require_writable()
        self.context.upload_cleanup.run_once(self.context.catalog, self.context.blobs, self.context.clock())
        self.context.blobs.require_room(sum(map(len, lacking.values())))
        with self.context.catalog.read_prepared() as tx:
            damaged = [digest for digest in lacking if damage.damage_reason(tx, digest) is not None]
        for digest in damaged:
            self.context.blobs.set_aside(digest)  # kept for inspection, as for any upload
        self.context.blobs.put_all(lacking)

    def own(self, tx: Transaction, lacking: dict[Digest, bytes]) -> None:
        """Makes the adapter the owner of the stored bytes. Raises `Unavailable` if a sweep deleted them."""
        self._require_room(tx, lacking, files.sizes(tx, self.name, lacking))
        for digest, data in lacking.items():
            # They had no owner until now. A sweep begins to delete in a transaction: from here on, none does.
            if not self.context.blobs.original.has(digest):
                raise _deleting()
            files.add_owned(tx, self.name, digest, len(data), self.context.identity.name)
            damage.clear_damage(tx, digest)

    def _require_room(self, tx: Reads, lacking: dict[Digest, bytes], owned: dict[Digest, int]) -> None:
        if not lacking:
            return
        new = sum(len(data) for digest, data in lacking.items() if digest not in owned)
        require_bytes(self.context, tx, self.name.namespace, new)
        if any(pending_deletes.is_deleting(tx, digest) for digest in lacking):
            raise _deleting()

    def _is_sound(self, tx: Reads, owned: dict[Digest, int], digest: Digest) -> bool:
        if digest not in owned or damage.damage_reason(tx, digest) is not None:
            return False
        try:
            return self.context.blobs.original.size(digest) == owned[digest]
        except NotFound:
            return False


def _deleting() -> Unavailable:
    return Unavailable("these bytes are being deleted; wait a moment and send them again")
