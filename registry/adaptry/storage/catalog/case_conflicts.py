"""Names that differ only in capitals: new ones are refused; existing ones stay and can be listed.

The Hub's names are case-insensitive, as are file names on many systems. Each name's lower case is stored
beside it in a unique index (`folded`). If names conflicted before this rule, the first has the lower case and
the others have none: each is found as written. All names are ASCII (by `refs` and `hub_revision`), so lower
case is sufficient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, func, or_, select

from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, AliasRow, BaseNameRow, MarkRow, NamespaceRow
from adaptry.storage.catalog.version_info import table_of

_ADAPTERS, _NAMESPACES, _BASES = table_of(AdapterRow), table_of(NamespaceRow), table_of(BaseNameRow)
_ALIASES, _MARKS = table_of(AliasRow), table_of(MarkRow)


def fold(name: str) -> str:
    """The form in which names that differ only in capitals are equal."""
    return name.lower()


def is_same_folded(column: Any, folded: Any, name: str) -> ColumnElement[bool]:
    """Whether a row's name equals `name` except for capitals. The unique index on `folded` makes it fast.

    (`Any`: SQLModel's columns are typed as their values.)
    """
    return or_(folded == fold(name), and_(folded.is_(None), func.lower(column) == fold(name)))


def namespace_like(tx: Transaction, namespace: str) -> str | None:
    """Another namespace whose name differs only in capitals; None also if this one itself exists."""
    if tx.execute(select(_NAMESPACES.c.name).where(_NAMESPACES.c.name == namespace)).first():
        return None
    return _other(tx, _NAMESPACES, namespace, _NAMESPACES.c.name)


def adapter_like(tx: Transaction, name: str) -> str | None:
    """Another adapter whose name differs only in capitals."""
    return _other(tx, _ADAPTERS, name, _ADAPTERS.c.name)


def base_like(tx: Transaction, name: str) -> tuple[str, str] | None:
    """Another name of a base that differs only in capitals, and the base's id in hex."""
    query = select(_BASES.c.name, _BASES.c.base_id).where(
        _BASES.c.folded == fold(name), _BASES.c.name != name
    )
    found = tx.execute(query).first()
    return (found.name, found.base_id) if found else None


def label_like(tx: Transaction, adapter: int, label: str) -> str | None:
    """Another alias, branch or tag of an adapter whose name differs only in capitals."""
    return _other(tx, _ALIASES, label, _ALIASES.c.alias, _ALIASES.c.adapter_id == adapter) or _other(
        tx, _MARKS, label, _MARKS.c.name, _MARKS.c.adapter_id == adapter
    )


def release_adapter_name(tx: Transaction, name: str) -> None:
    """Called when an adapter gives up its name: the next one that differs only in capitals gets the lower
    case.
    """
    left = _left(_ADAPTERS, name, _ADAPTERS.c.name, _ADAPTERS.c.deleted_at.is_(None))
    _release_name(tx, _ADAPTERS, name, _ADAPTERS.c.name, left)


def release_alias(tx: Transaction, adapter: int, alias: str) -> None:
    """The same as `release_adapter_name`, for the aliases of an adapter."""
    is_its = (_ALIASES.c.adapter_id == adapter) & _ALIASES.c.version_id.is_not(None)
    _release_name(
        tx, _ALIASES, alias, _ALIASES.c.alias, _left(_ALIASES, alias, _ALIASES.c.alias, is_its), is_its
    )


def release_git_ref(tx: Transaction, adapter: int, name: str) -> None:
    """The same as `release_adapter_name`, for the branches and tags of an adapter."""
    is_its = _MARKS.c.adapter_id == adapter
    _release_name(tx, _MARKS, name, _MARKS.c.name, _left(_MARKS, name, _MARKS.c.name, is_its), is_its)


def iter_case_conflicts(tx: Transaction) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every group of names that differ only in capitals, with their kind (`adapters`, `namespaces`, …)."""
    for kind, table, column, counts in (
        ("namespaces", _NAMESPACES, _NAMESPACES.c.name, None),
        ("adapters", _ADAPTERS, _ADAPTERS.c.name, _ADAPTERS.c.deleted_at.is_(None)),
        ("names of bases", _BASES, _BASES.c.name, None),
    ):
        query = select(column, table.c.folded)
        twins = select(func.lower(column)).group_by(func.lower(column)).having(func.count() > 1)
        if counts is not None:
            query, twins = query.where(counts), twins.where(counts)
        yield from _groups(tx, kind, query.where(func.lower(column).in_(twins)), column)
    labels = (
        select(_ALIASES.c.adapter_id, _ALIASES.c.alias.label("label"))
        .where(_ALIASES.c.version_id.is_not(None))
        .union_all(select(_MARKS.c.adapter_id, _MARKS.c.name))
        .subquery()
    )
    alike = (
        select(labels.c.adapter_id, func.lower(labels.c.label).label("folded"))
        .group_by(labels.c.adapter_id, func.lower(labels.c.label))
        .having(func.count() > 1)
        .subquery()
    )
    query = (
        select(_ADAPTERS.c.name + "@" + labels.c.label)
        .join_from(labels, _ADAPTERS, _ADAPTERS.c.id == labels.c.adapter_id)
        .join(
            alike,
            (alike.c.adapter_id == labels.c.adapter_id) & (alike.c.folded == func.lower(labels.c.label)),
        )
    )
    yield from _groups(tx, "aliases, branches or tags", query, None)


def _groups(
    tx: Transaction, kind: str, query: Any, column: ColumnElement[str] | None
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(`Any`: a select is typed by all its columns.)"""
    groups: dict[str, list[str]] = {}
    for row in tx.execute(query):
        groups.setdefault(fold(row[0]), []).append(row[0])
    for found in groups.values():
        yield kind, tuple(sorted(found))


def _other(
    tx: Transaction, table: Table, name: str, column: ColumnElement[str], *within: ColumnElement[bool]
) -> str | None:
    query = select(column).where(table.c.folded == fold(name), column != name, *within)
    found: str | None = tx.execute(query).scalar()
    return found


def _left(
    table: Table, name: str, column: ColumnElement[str], counts: ColumnElement[bool]
) -> ColumnElement[str]:
    return (
        select(func.min(column))
        .where(func.lower(column) == fold(name), column != name, table.c.folded.is_(None), counts)
        .scalar_subquery()
    )


def _release_name(
    tx: Transaction,
    table: Table,
    name: str,
    column: ColumnElement[str],
    heir: ColumnElement[str],
    *within: ColumnElement[bool],
) -> None:
    tx.execute(table.update().where(column == heir, *within).values(folded=fold(name)))
