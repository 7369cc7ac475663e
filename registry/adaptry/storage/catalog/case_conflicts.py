"""Names that differ only in case: new ones are refused; existing ones stay and can be listed.

The Hub's names are case-insensitive, as are file names on many systems. Each name's lower case is stored
beside it in a unique index (`folded`). If names conflicted before this rule, the first has the lower case and
the others have none: each is found as written. All names are ASCII (by `refs` and `hub_revision`), so lower
case is sufficient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import sa, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import PreparedStatement, Selection, statement


def fold(name: str) -> str:
    """The form in which names that differ only in case are equal."""
    return name.lower()


def is_same_folded(column: Any, folded: Any, wanted: Any) -> sa.ColumnElement[bool]:
    """Whether a row's name equals one except for case, which is `wanted`, folded. The unique index on
    `folded` makes it fast.

    (`Any`: SQLModel's columns are typed as their values.)
    """
    return sa.or_(folded == wanted, sa.and_(folded.is_(None), sa.func.lower(column) == wanted))


@statement
def _namespace() -> Selection:
    return sa.select(tables.namespaces.c.name).where(tables.namespaces.c.name == sa.bindparam("name"))


@statement
def _other_namespace() -> Selection:
    return _other_in(tables.namespaces.c.name)


@statement
def _other_adapter() -> Selection:
    return _other_in(tables.adapters.c.name)


@statement
def _other_alias() -> Selection:
    return _other_in(tables.aliases.c.alias).where(tables.aliases.c.adapter_id == sa.bindparam("adapter"))


@statement
def _other_git_ref() -> Selection:
    return _other_in(tables.marks.c.name).where(tables.marks.c.adapter_id == sa.bindparam("adapter"))


def _other_in(column: sa.Column[str]) -> Selection:
    """Selects the names in a column that differ from a name only in case."""
    return sa.select(column.label("name")).where(
        column.table.c.folded == sa.bindparam("folded"), column != sa.bindparam("name")
    )


def has_namespace(tx: Reads, namespace: str) -> bool:
    return bool(run_select(tx, _namespace, {"name": namespace}))


def namespace_like(tx: Reads, namespace: str) -> str | None:
    """Another namespace whose name differs only in case; None if no such
    namespace exists, or if this one exists itself.
    """
    return None if has_namespace(tx, namespace) else _other(tx, _other_namespace, namespace)


def adapter_like(tx: Reads, name: str) -> str | None:
    """Another adapter whose name differs only in case."""
    return _other(tx, _other_adapter, name)


def base_like(tx: Transaction, name: str) -> tuple[str, str] | None:
    """Another name of a base that differs only in case, and the base's id in hex."""
    query = sa.select(tables.base_names.c.name, tables.base_names.c.base_id).where(
        tables.base_names.c.folded == fold(name), tables.base_names.c.name != name
    )
    found = tx.execute(query).first()
    return (found.name, found.base_id) if found else None


def label_like(tx: Reads, adapter: int, label: str) -> str | None:
    """Another alias, branch or tag of an adapter whose name differs only in case."""
    within = {"adapter": adapter}
    return _other(tx, _other_alias, label, within) or _other(tx, _other_git_ref, label, within)


def release_adapter_name(tx: Transaction, name: str) -> None:
    """Called when an adapter gives up its name: the next adapter whose name differs only in case takes over
    the folded name.
    """
    left = _left(tables.adapters, name, tables.adapters.c.name, tables.adapters.c.deleted_at.is_(None))
    _release_name(tx, tables.adapters, name, tables.adapters.c.name, left)


def release_alias(tx: Transaction, adapter: int, alias: str) -> None:
    """Like `release_adapter_name`, for an adapter's aliases."""
    is_its = (tables.aliases.c.adapter_id == adapter) & tables.aliases.c.version_id.is_not(None)
    _release_name(
        tx,
        tables.aliases,
        alias,
        tables.aliases.c.alias,
        _left(tables.aliases, alias, tables.aliases.c.alias, is_its),
        is_its,
    )


def release_git_ref(tx: Transaction, adapter: int, name: str) -> None:
    """Like `release_adapter_name`, for an adapter's branches and tags."""
    is_its = tables.marks.c.adapter_id == adapter
    _release_name(
        tx,
        tables.marks,
        name,
        tables.marks.c.name,
        _left(tables.marks, name, tables.marks.c.name, is_its),
        is_its,
    )


def iter_case_conflicts(tx: Transaction) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every group of names that differ only in case, with their kind (`adapters`, `namespaces`, …)."""
    for kind, table, column, counts in (
        ("namespaces", tables.namespaces, tables.namespaces.c.name, None),
        ("adapters", tables.adapters, tables.adapters.c.name, tables.adapters.c.deleted_at.is_(None)),
        ("names of bases", tables.base_names, tables.base_names.c.name, None),
    ):
        query = sa.select(column, table.c.folded)
        twins = sa.select(sa.func.lower(column)).group_by(sa.func.lower(column)).having(sa.func.count() > 1)
        if counts is not None:
            query, twins = query.where(counts), twins.where(counts)
        yield from _groups(tx, kind, query.where(sa.func.lower(column).in_(twins)), column)
    labels = (
        sa.select(tables.aliases.c.adapter_id, tables.aliases.c.alias.label("label"))
        .where(tables.aliases.c.version_id.is_not(None))
        .union_all(sa.select(tables.marks.c.adapter_id, tables.marks.c.name))
        .subquery()
    )
    alike = (
        sa.select(labels.c.adapter_id, sa.func.lower(labels.c.label).label("folded"))
        .group_by(labels.c.adapter_id, sa.func.lower(labels.c.label))
        .having(sa.func.count() > 1)
        .subquery()
    )
    query = (
        sa.select(tables.adapters.c.name + "@" + labels.c.label)
        .join_from(labels, tables.adapters, tables.adapters.c.id == labels.c.adapter_id)
        .join(
            alike,
            (alike.c.adapter_id == labels.c.adapter_id) & (alike.c.folded == sa.func.lower(labels.c.label)),
        )
    )
    yield from _groups(tx, "aliases, branches or tags", query, None)


def _groups(
    tx: Transaction, kind: str, query: Any, column: sa.ColumnElement[str] | None
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(`Any`: a select is typed by all its columns.)"""
    groups: dict[str, list[str]] = {}
    for row in tx.execute(query):
        groups.setdefault(fold(row[0]), []).append(row[0])
    for found in groups.values():
        yield kind, tuple(sorted(found))


def _other(
    tx: Reads, query: PreparedStatement[sa.Select[Any]], name: str, within: Mapping[str, object] | None = None
) -> str | None:
    """(`Any`: typed by its columns.)"""
    found = run_select(tx, query, {"folded": fold(name), "name": name, **(within or {})})
    return found[0].name if found else None


def _left(
    table: sa.Table, name: str, column: sa.ColumnElement[str], counts: sa.ColumnElement[bool]
) -> sa.ColumnElement[str]:
    return (
        sa.select(sa.func.min(column))
        .where(sa.func.lower(column) == fold(name), column != name, table.c.folded.is_(None), counts)
        .scalar_subquery()
    )


def _release_name(
    tx: Transaction,
    table: sa.Table,
    name: str,
    column: sa.ColumnElement[str],
    heir: sa.ColumnElement[str],
    *within: sa.ColumnElement[bool],
) -> None:
    tx.execute(table.update().where(column == heir, *within).values(folded=fold(name)))
