"""Names of adapters and bases: clients of the Hub reach both under one address, so a name belongs to one of them.

An adapter without a commit has nothing that anyone could read, so it hides nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, exists, func, or_
from sqlmodel import col, select

from adaptry.catalog.bases import namespace_of
from adaptry.catalog.database import Transaction
from adaptry.catalog.rows import AdapterRow, BaseNameRow, BaseRow, CommitRow, EventRow, NamespaceRow
from adaptry.catalog.sight import Sight
from adaptry.chains import COMMIT_MADE
from adaptry.manifest import EMPTY
from adaptry.refs import AdapterName

_HAS_COMMIT = exists().where(
    col(CommitRow.adapter_id) == col(AdapterRow.id), col(CommitRow.digest) != EMPTY.digest.hex
)
_HAD_COMMIT = exists().where(
    col(EventRow.adapter_id) == col(AdapterRow.id),
    col(EventRow.kind).in_(("version.pushed", COMMIT_MADE)),
)
# A rename takes the events along, so nothing tells any more whether there were commits: it counts as if there were.
_WAS_RENAMED = and_(
    col(AdapterRow.deleted_at).is_not(None), ~exists().where(col(EventRow.adapter_id) == col(AdapterRow.id))
)


def base_of_name(tx: Transaction, name: AdapterName) -> str | None:
    """The name of a base in the same namespace that is this one, or differs from it by case alone."""
    query = select(BaseNameRow.name).where(
        BaseNameRow.namespace == name.namespace,
        func.lower(col(BaseNameRow.name)) == str(name).lower(),
    )
    return tx.exec(query).first()


def adapter_of_name(tx: Transaction, name: str) -> str | None:
    """The same, the other way round: an adapter, empty or not."""
    query = select(AdapterRow.name).where(
        AdapterRow.namespace == namespace_of(name),
        func.lower(col(AdapterRow.name)) == name.lower(),
        col(AdapterRow.deleted_at).is_(None),
    )
    return tx.exec(query).first()


def hiding(tx: Transaction, names: Collection[str]) -> list[str]:
    """Those of the names that an adapter with a commit has."""
    query = select(AdapterRow.name).where(
        col(AdapterRow.name).in_(names), col(AdapterRow.deleted_at).is_(None), _HAS_COMMIT
    )
    return list(tx.exec(query.order_by(AdapterRow.name)))


def is_empty(tx: Transaction, name: AdapterName) -> bool:
    """Whether there is an adapter of that name that never had a commit of any files."""
    query = select(AdapterRow.id).where(
        AdapterRow.name == str(name), col(AdapterRow.deleted_at).is_(None), ~_HAS_COMMIT
    )
    return tx.exec(query).first() is not None


def is_used(tx: Transaction, namespace: str) -> bool:
    """Whether the namespace has, or had, an adapter with a commit, whoever may see it; or one that differs from it by
    case alone has."""
    same = select(NamespaceRow.name).where(func.lower(col(NamespaceRow.name)) == namespace.lower())
    query = select(AdapterRow.id).where(
        col(AdapterRow.namespace).in_(list(tx.exec(same))),
        or_(col(AdapterRow.next_number) > 1, _HAS_COMMIT, _HAD_COMMIT, _WAS_RENAMED),
    )
    return tx.exec(query.limit(1)).first() is not None


def namespace_spelled(tx: Transaction, sight: Sight, namespace: str) -> str:
    """The namespace of adapters in sight that is this one but for its case; itself if it has any, or several others do."""
    query = select(AdapterRow.namespace).where(
        col(AdapterRow.namespace).in_(
            list(
                tx.exec(
                    select(NamespaceRow.name).where(func.lower(col(NamespaceRow.name)) == namespace.lower())
                )
            )
        ),
        col(AdapterRow.deleted_at).is_(None),
    )
    if (seen := sight.of_adapters()) is not None:
        query = query.where(seen)
    found = set(tx.exec(query.distinct()))
    return found.pop() if len(found) == 1 and namespace not in found else namespace


def spelled_otherwise(tx: Transaction, sight: Sight, name: str, *, with_bases: bool) -> str | None:
    """The name of the adapter, or else the base, in sight that is `name` but for its case; `name` itself if something in
    sight has it, and None if several others do."""
    namespace, slash, _ = name.partition("/")
    found: set[str] = set()
    if slash:
        same = select(NamespaceRow.name).where(func.lower(col(NamespaceRow.name)) == namespace.lower())
        adapters = select(AdapterRow.name).where(
            col(AdapterRow.namespace).in_(list(tx.exec(same))),
            func.lower(col(AdapterRow.name)) == name.lower(),
            col(AdapterRow.deleted_at).is_(None),
        )
        if (seen := sight.of_adapters()) is not None:
            adapters = adapters.where(seen)
        found.update(tx.exec(adapters))
    if with_bases:
        bases = (
            select(BaseNameRow.name)
            .join(BaseRow, col(BaseRow.id) == col(BaseNameRow.base_id))
            .where(func.lower(col(BaseNameRow.name)) == name.lower())
        )
        if (seen := sight.of_bases()) is not None:
            bases = bases.where(seen)
        found.update(tx.exec(bases))
    if name in found:
        return name
    return found.pop() if len(found) == 1 else None
