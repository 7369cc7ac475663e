"""Names shared by adapters and bases: the Hub has one URL for both, so a name belongs to one of them.

An adapter without a commit has nothing to read, so it hides no base.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

from adaptry.core.manifest import EMPTY
from adaptry.core.refs import AdapterName
from adaptry.registry.commits import COMMIT_CREATED
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.case_conflicts import fold, is_same_folded
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import Selection, statement


@cache
def _has_commit() -> Any:
    return sa.exists().where(
        sm.col(orm.CommitRow.adapter_id) == sm.col(orm.AdapterRow.id),
        sm.col(orm.CommitRow.digest) != EMPTY.digest.hex,
    )


@statement
def _empty() -> Selection:
    return sa.select(sm.col(orm.AdapterRow.id)).where(
        sm.col(orm.AdapterRow.name) == sa.bindparam("name"),
        sm.col(orm.AdapterRow.deleted_at).is_(None),
        ~_has_commit(),
    )


@cache
def _had_commit() -> Any:
    return sa.exists().where(
        sm.col(orm.EventRow.adapter_id) == sm.col(orm.AdapterRow.id),
        sm.col(orm.EventRow.kind).in_(("version.pushed", COMMIT_CREATED)),
    )


# A rename moves the events, so it is unknown whether there were commits: it counts as if there were.


@cache
def _was_renamed() -> Any:
    return sa.and_(
        sm.col(orm.AdapterRow.deleted_at).is_not(None),
        ~sa.exists().where(sm.col(orm.EventRow.adapter_id) == sm.col(orm.AdapterRow.id)),
    )


@statement
def _base_like() -> Selection:
    names = tables.base_names
    return sa.select(names.c.name).where(
        is_same_folded(names.c.name, names.c.folded, sa.bindparam("folded", type_=names.c.folded.type))
    )


def base_of_name(tx: Reads, name: AdapterName) -> str | None:
    """The name of a base that equals this one or differs only in case."""
    found = run_select(tx, _base_like, {"folded": fold(str(name))})
    return found[0].name if found else None


def adapter_of_name(tx: Transaction, name: str) -> str | None:
    """The name of an adapter, empty or not, that equals this one or differs only in case."""
    query = sm.select(orm.AdapterRow.name).where(
        _is_adapter(name), sm.col(orm.AdapterRow.deleted_at).is_(None)
    )
    return tx.exec(query).first()


def hiding(tx: Transaction, names: Collection[str]) -> list[str]:
    """Those of the names that an adapter with a commit has."""
    query = sm.select(orm.AdapterRow.name).where(
        sm.col(orm.AdapterRow.name).in_(names), sm.col(orm.AdapterRow.deleted_at).is_(None), _has_commit()
    )
    return list(tx.exec(query.order_by(orm.AdapterRow.name)))


def is_empty(tx: Reads, name: AdapterName) -> bool:
    """Whether there is an adapter of that name that never had a commit with files."""
    return bool(run_select(tx, _empty, {"name": str(name)}))


def is_used(tx: Transaction, namespace: str) -> bool:
    """Whether the namespace, in any capitals, has or had an adapter with a commit, visible or not."""
    query = sm.select(orm.AdapterRow.id).where(
        sm.col(orm.AdapterRow.namespace).in_(_namespaces(tx, namespace)),
        sa.or_(sm.col(orm.AdapterRow.next_number) > 1, _has_commit(), _had_commit(), _was_renamed()),
    )
    return tx.exec(query.limit(1)).first() is not None


def namespace_spelled(tx: Transaction, scope: ReadScope, namespace: str) -> str:
    """The namespace of readable adapters that differs from this only by case; itself if it or several have
    any.
    """
    query = sm.select(orm.AdapterRow.namespace).where(
        sm.col(orm.AdapterRow.namespace).in_(_namespaces(tx, namespace)),
        sm.col(orm.AdapterRow.deleted_at).is_(None),
    )
    if (seen := scope.adapter_condition()) is not None:
        query = query.where(seen)
    found = set(tx.exec(query.distinct()))
    return found.pop() if len(found) == 1 and namespace not in found else namespace


def spelled_otherwise(tx: Transaction, scope: ReadScope, name: str, *, with_bases: bool) -> str | None:
    """The name of the readable adapter, or else base, that equals `name` except for case; `name` itself if a
    readable one has it, and None if several others match.
    """
    found: set[str] = set()
    if "/" in name:
        adapters = sm.select(orm.AdapterRow.name).where(
            _is_adapter(name), sm.col(orm.AdapterRow.deleted_at).is_(None)
        )
        if (seen := scope.adapter_condition()) is not None:
            adapters = adapters.where(seen)
        found.update(tx.exec(adapters))
    if with_bases:
        bases = (
            sm.select(orm.BaseNameRow.name)
            .join(orm.BaseRow, sm.col(orm.BaseRow.id) == sm.col(orm.BaseNameRow.base_id))
            .where(_is_base(name))
        )
        if (seen := scope.base_condition()) is not None:
            bases = bases.where(seen)
        found.update(tx.exec(bases))
    if name in found:
        return name
    return found.pop() if len(found) == 1 else None


def _is_adapter(name: str) -> sa.ColumnElement[bool]:
    return is_same_folded(sm.col(orm.AdapterRow.name), sm.col(orm.AdapterRow.folded), fold(name))


def _is_base(name: str) -> sa.ColumnElement[bool]:
    return is_same_folded(sm.col(orm.BaseNameRow.name), sm.col(orm.BaseNameRow.folded), fold(name))


def _namespaces(tx: Transaction, namespace: str) -> list[str]:
    same = is_same_folded(sm.col(orm.NamespaceRow.name), sm.col(orm.NamespaceRow.folded), fold(namespace))
    return list(tx.exec(sm.select(orm.NamespaceRow.name).where(same)))
