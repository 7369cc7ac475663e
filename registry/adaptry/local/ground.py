"""What every part of a local registry stands on: the stores, who is asking, and the first question of every method."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from adaptry.blobs import BlobStore
from adaptry.catalog import adapters, versions
from adaptry.catalog.adapters import Line
from adaptry.catalog.database import Catalog, Transaction
from adaptry.catalog.versions import Stored
from adaptry.errors import Denied, NotFound
from adaptry.identity import LOCAL, Identity, require_read, require_write
from adaptry.refs import AdapterName, Ref
from adaptry.registry import Registry


def utc_now() -> datetime:
    return datetime.now(UTC)


class Ground(Registry):
    """The stores and the identity; `clock` is asked for every time that is recorded."""

    def __init__(
        self,
        catalog: Catalog,
        blobs: BlobStore,
        identity: Identity = LOCAL,
        *,
        require_known_base: bool = False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """With `require_known_base`, a push whose base is not registered is refused, not admitted as declared."""
        self.catalog = catalog
        self.blobs = blobs
        self.identity = identity
        self.require_known_base = require_known_base
        self.clock = clock

    def close(self) -> None:
        self.catalog.close()

    def readable(self, tx: Transaction, name: AdapterName) -> Line:
        """The adapter, if it is there and may be read. Raises `NotFound`, with the same words for both."""
        line = adapters.find(tx, name)
        if line is None:
            raise NotFound(f"no adapter {name}")
        require_read(self.identity, name, line.visibility)
        return line

    def writable(self, tx: Transaction, name: AdapterName) -> Line:
        """Raises `NotFound`, or `Denied` to who may only read it."""
        line = self.readable(tx, name)
        require_write(self.identity, name, line.visibility)
        return line

    def stored(self, tx: Transaction, line: Line, ref: Ref) -> Stored:
        """The version a ref means. Raises `NotFound`, `Conflict` (ambiguous)."""
        found = versions.find(tx, line, ref.selector)
        if found is None:
            raise NotFound(f"no version {ref}; `adaptry history {ref.name}` shows what there is and was")
        return found

    def require_bases(self) -> None:
        """Bases belong to no namespace: whoever holds one may read them. Raises `NotFound`."""
        if not self.identity.namespaces:
            raise NotFound("no such base")

    def require_base_writing(self) -> None:
        """Raises `NotFound`, or `Denied` to who may only read bases."""
        self.require_bases()
        if not self.identity.may_administer:
            raise Denied(
                f"{self.identity.name} may not change bases, which every namespace shares; ask an administrator"
            )
