"""The files role of a local registry: checks whether an owner has a file, and reads files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.identity import require_read
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry.files import FileReader, Files, Owner
from adaptry.storage.catalog import adapters, bases, damage, files
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.open_revisions import open_revision, open_revisions


@dataclass(frozen=True)
class LocalFiles(Files):
    """The files of a local registry."""

    context: RegistryContext

    def has(self, owner: Owner, digest: Digest) -> bool:
        if isinstance(owner, Digest):
            with self.context.catalog.read() as session:
                require_base_visible(self.context, session, owner)
        with self.context.catalog.read_prepared() as tx:
            if isinstance(owner, AdapterName):
                self._require_reading(tx, owner)
            size = files.sizes(tx, owner, [digest]).get(digest)
            is_owned = size is not None and damage.damage_reason(tx, digest) is None
            is_unneeded = is_owned and files.is_unneeded(tx, owner, digest)
        if is_unneeded:  # the caller is about to need it
            with self.context.write() as tx:
                files.clear_unneeded(tx, owner, [digest])
                is_owned = bool(files.sizes(tx, owner, [digest]))
        # Lost, truncated or damaged bytes count as missing, so that clients send them again and repair the
        # store.
        return is_owned and self._stored_size(digest) == size

    def read(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        return open_revision(self.context, name, revision, [path]).read(path, start)

    def readers(self, revisions: Sequence[tuple[AdapterName, Digest]]) -> tuple[FileReader, ...]:
        return open_revisions(self.context, revisions)

    def _stored_size(self, digest: Digest) -> int | None:
        try:
            return self.context.blobs.original.size(digest)
        except NotFound:
            return None

    def _require_reading(self, tx: Reads, name: AdapterName) -> None:
        """Raises an error unless the caller may read the adapter. Callers who may push to a name may query it
        before it exists.
        """
        if not self.context.may("push", name):
            adapter = adapters.find(tx, name)
            if adapter is None:
                raise NotFound(f"no adapter {name}")
            require_read(self.context.identity, name, adapter.visibility)


def require_base_visible(context: RegistryContext, tx: Transaction, id: Digest) -> None:
    if not bases.visible_among(tx, context.read_scope(tx), [id]):
        raise NotFound(f"no base {id.brief}; register it before its files")
