"""Case-insensitive names, as on the Hub: a missing name leads to the one that differs only by case.

The exact spelling always comes first. If several names differ only by case, another spelling matches none of
them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from adaptry.core.errors import InvalidRef, NotFound
from adaptry.core.identity import Identity
from adaptry.core.refs import MERGED, AdapterName
from adaptry.storage.catalog.access import read_scope
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.shared_names import namespace_spelled, spelled_otherwise


class HasCatalog(Protocol):
    """Finds names in a store with a catalog."""

    @property
    def catalog(self) -> Catalog: ...


class NameCaseMismatch(NotFound):
    """No repository has the name as written, but one has it in a different case."""


def canonical_id(state: HasCatalog, identity: Identity, id: str) -> str | None:
    """The one repository visible to the caller whose name differs from `id` only by case; None for `id`
    itself.
    """
    bare, ending = (id[: -len(MERGED)], MERGED) if id.lower().endswith(MERGED) else (id, "")
    with state.catalog.read() as tx:
        found = spelled_otherwise(tx, read_scope(tx, identity), bare, with_bases=not ending)
    return f"{found}{ending}" if found and f"{found}{ending}" != id else None


def canonical_namespace(state: HasCatalog, identity: Identity, namespace: str) -> str:
    """The spelling of a namespace in which the caller sees adapters."""
    with state.catalog.read() as tx:
        return namespace_spelled(tx, read_scope(tx, identity), namespace)


def canonical_adapter(state: HasCatalog, identity: Identity, name: AdapterName) -> AdapterName:
    """The adapter that a name in a request's body refers to: the name itself, unless only another spelling
    exists.
    """
    with state.catalog.read() as tx:
        found = spelled_otherwise(tx, read_scope(tx, identity), str(name), with_bases=False)
    with suppress(InvalidRef):
        return AdapterName.parse(found) if found else name
    return name
