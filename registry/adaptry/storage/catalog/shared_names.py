"""Names shared by adapters and bases: the Hub has one URL for both, so a name belongs to one of them.

An adapter without a commit has nothing to read, so it hides no base.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, and_, bindparam, exists, or_
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.core.manifest import EMPTY
from adaptry.core.refs import AdapterName
from adaptry.registry.commits import COMMIT_MADE
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.case_conflicts import is_same_folded
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import AdapterRow, BaseNameRow, BaseRow, CommitRow, EventRow, NamespaceRow

_HAS_COMMIT = exists().where(
    col(CommitRow.adapter_id) == col(AdapterRow.id), col(CommitRow.digest) != EMPTY.digest.hex
)
_EMPTY = select_columns(col(AdapterRow.id)).where(
    col(AdapterRow.name) == bindparam("name"), col(AdapterRow.deleted_at).is_(None), ~_HAS_COMMIT
)
_HAD_COMMIT = exists().where(
    col(EventRow.adapter_id) == col(AdapterRow.id),
    col(EventRow.kind).in_(("version.pushed", COMMIT_MADE)),
)
# A rename moves the events, so it is unknown whether there were commits: it counts as if there were.
_WAS_RENAMED = and_(
    col(AdapterRow.deleted_at).is_not(None), ~exists().where(col(EventRow.adapter_id) == col(AdapterRow.id))
)


def base_of_name(tx: Transaction, name: AdapterName) -> str | None:
    """The name of a base that equals this one or differs only in capitals."""
    return tx.exec(select(BaseNameRow.name).where(_is_base(str(name)))).first()


def adapter_of_name(tx: Transaction, name: str) -> str | None:
    """The same for an adapter, empty or not."""
    query = select(AdapterRow.name).where(_is_adapter(name), col(AdapterRow.deleted_at).is_(None))
    return tx.exec(query).first()


def hiding(tx: Transaction, names: Collection[str]) -> list[str]:
    """The names among these that an adapter with a commit has."""
    query = select(AdapterRow.name).where(
        col(AdapterRow.name).in_(names), col(AdapterRow.deleted_at).is_(None), _HAS_COMMIT
    )
    return list(tx.exec(query.order_by(AdapterRow.name)))


def is_empty(tx: Reads, name: AdapterName) -> bool:
    """Whether there is an adapter of that name that never had a commit with files."""
    return bool(run_select(tx, _EMPTY, {"name": str(name)}))


def is_used(tx: Transaction, namespace: str) -> bool:
    """Whether the namespace, in any capitals, has or had an adapter with a commit, visible or not."""
    query = select(AdapterRow.id).where(
        col(AdapterRow.namespace).in_(_namespaces(tx, namespace)),
        or_(col(AdapterRow.next_number) > 1, _HAS_COMMIT, _HAD_COMMIT, _WAS_RENAMED),
    )
    return tx.exec(query.limit(1)).first() is not None


def namespace_spelled(tx: Transaction, scope: ReadScope, namespace: str) -> str:
    """The namespace of readable adapters that differs from this only by case; itself if it or several have
    any.
    """
    query = select(AdapterRow.namespace).where(
        col(AdapterRow.namespace).in_(_namespaces(tx, namespace)), col(AdapterRow.deleted_at).is_(None)
    )
    if (seen := scope.adapter_condition()) is not None:
        query = query.where(seen)
    found = set(tx.exec(query.distinct()))
    return found.pop() if len(found) == 1 and namespace not in found else namespace


def spelled_otherwise(tx: Transaction, scope: ReadScope, name: str, *, with_bases: bool) -> str | None:
    """The name of the readable adapter, or else base, that equals `name` except for capitals; `name` itself
    if a readable one has it, and None if several others match.
    """
    found: set[str] = set()
    if "/" in name:
        adapters = select(AdapterRow.name).where(_is_adapter(name), col(AdapterRow.deleted_at).is_(None))
        if (seen := scope.adapter_condition()) is not None:
            adapters = adapters.where(seen)
        found.update(tx.exec(adapters))
    if with_bases:
        bases = (
            select(BaseNameRow.name)
            .join(BaseRow, col(BaseRow.id) == col(BaseNameRow.base_id))
            .where(_is_base(name))
        )
        if (seen := scope.base_condition()) is not None:
            bases = bases.where(seen)
        found.update(tx.exec(bases))
    if name in found:
        return name
    return found.pop() if len(found) == 1 else None


def _is_adapter(name: str) -> ColumnElement[bool]:
    return is_same_folded(col(AdapterRow.name), col(AdapterRow.folded), name)


def _is_base(name: str) -> ColumnElement[bool]:
    return is_same_folded(col(BaseNameRow.name), col(BaseNameRow.folded), name)


def _namespaces(tx: Transaction, namespace: str) -> list[str]:
    same = is_same_folded(col(NamespaceRow.name), col(NamespaceRow.folded), namespace)
    return list(tx.exec(select(NamespaceRow.name).where(same)))
