"""The part of a local registry that takes the files of a small push together with its manifest.

They are checked in memory, so bytes that are not admitted are never stored, and count against nobody. Then
those that the adapter lacks are stored together, and get their owner in the transaction of the version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptry.adapters.content import MemoryContent
from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidManifest, NotFound, TooLarge, Unavailable
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.registry.versions import MAX_SENT
from adaptry.storage.blobs.store import require_digest
from adaptry.storage.catalog import adapters, damage, files, pending_deletes
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext, require_no_base
from adaptry.storage.local.quotas import require_bytes


@dataclass(frozen=True)
class SentFiles:
    """The files of a manifest, in memory and verified."""

    context: RegistryContext
    name: AdapterName
    content: MemoryContent
    data: dict[Digest, bytes]

    @classmethod
    def verified(
        cls, context: RegistryContext, name: AdapterName, declared: Manifest, sent: Sequence[bytes]
    ) -> SentFiles:
        """Raises `TooLarge`, `DigestMismatch`, and `InvalidManifest` if the manifest has other files."""
        if declared.size > MAX_SENT:
            raise TooLarge(
                f"the files have {declared.size:,} bytes; at most {MAX_SENT >> 20} MiB are pushed in one"
                " request; upload them first"
            )
        if [len(data) for data in sent] != [entry.size for entry in declared.files]:
            raise InvalidManifest(
                f"{sum(map(len, sent)):,} bytes were sent for {len(declared.files)} files of"
                f" {declared.size:,} bytes; the manifest's files follow it, in its order"
            )
        data = {entry.sha256: file for entry, file in zip(declared.files, sent, strict=True)}
        for digest, file in data.items():
            require_digest(digest, file)
        paths = {entry.path: data[entry.sha256] for entry in declared.files}
        return cls(context, name, MemoryContent(paths), data)

    def lacking(self, tx: Transaction) -> dict[Digest, bytes]:
        """The files that are not stored for the adapter, or damaged. Raises `QuotaExceeded`, `Busy`,
        `Conflict` and `Unavailable` if they may not be.
        """
        if adapters.find(tx, self.name) is None:
            adapters.require_distinct_name(tx, self.name)
            require_no_base(tx, self.name)
        owned = files.sizes(tx, self.name, self.data)
        found = {digest: data for digest, data in self.data.items() if not self._is_sound(tx, owned, digest)}
        self._require_room(tx, found)
        return found

    def store(self, lacking: dict[Digest, bytes]) -> None:
        """Puts the bytes on the disk. Raises `StorageFull`."""
        if not lacking:
            return
        self.context.upload_cleanup.run_once(self.context.catalog, self.context.blobs, self.context.clock())
        self.context.blobs.require_room(sum(map(len, lacking.values())))
        with self.context.catalog.read_prepared() as tx:
            damaged = [digest for digest in lacking if damage.damage_reason(tx, digest) is not None]
        for digest in damaged:
            self.context.blobs.set_aside(digest)  # kept for inspection, as for any upload
        self.context.blobs.put_all(lacking)

    def own(self, tx: Transaction, lacking: dict[Digest, bytes]) -> None:
        """Makes the adapter the owner of the stored bytes. Raises `Unavailable` if a sweep deleted them."""
        self._require_room(tx, lacking)
        for digest, data in lacking.items():
            # They had no owner until now. A sweep begins to delete in a transaction: from here on, none does.
            if pending_deletes.is_deleting(tx, digest) or not self.context.blobs.original.has(digest):
                raise Unavailable("these bytes are being deleted; wait a moment and push them again")
            files.add_owned(tx, self.name, digest, len(data), self.context.identity.name)
            damage.clear_damage(tx, digest)

    def _require_room(self, tx: Transaction, lacking: dict[Digest, bytes]) -> None:
        if not lacking:
            return
        owned = files.sizes(tx, self.name, lacking)
        new = sum(len(data) for digest, data in lacking.items() if digest not in owned)
        require_bytes(self.context, tx, self.name.namespace, new)
        if any(pending_deletes.is_deleting(tx, digest) for digest in lacking):
            raise Unavailable("these bytes are being deleted; wait a moment and push them again")

    def _is_sound(self, tx: Transaction, owned: dict[Digest, int], digest: Digest) -> bool:
        if digest not in owned or damage.damage_reason(tx, digest) is not None:
            return False
        try:
            return self.context.blobs.original.size(digest) == owned[digest]
        except NotFound:
            return False
