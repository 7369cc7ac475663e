"""Versions as `VersionInfo`: their columns, aliases and metrics.

Every follower of an alias queries this, so it must be cheap: statements are built once, since building one
takes longer than running it on SQLite, and plain columns are read, without entities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias, cast

from adaptry.registry.records import VersionInfo
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.lazy_modules import orm, sa, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.shown_versions import version_of
from adaptry.storage.catalog.statement_texts import CombinedSelection, Selection, sized_statement, statement

Columns: TypeAlias = "sa.Row[Any]"
"""A selected row. (`Any`: SQLAlchemy would need a type parameter for each column.)"""


def table_of(entity: type[orm.Row]) -> sa.Table:
    """An entity's table, to select columns instead of entities."""
    return cast(sa.Table, vars(entity)["__table__"])


@cache
def shown_columns() -> tuple[sa.ColumnElement[Any], ...]:
    """The columns that `info` and `by_keys` need. (`Any`: of many types.)"""
    is_damaged = sa.exists().where(tables.damaged_revisions.c.revision == tables.versions.c.digest)
    return tables.adapters.c.name, *tables.versions.c, is_damaged.label("is_damaged")


def _aliases_and_metrics(is_selected: Any) -> CombinedSelection:
    """Selects aliases, without a value, and metrics with their newest value. (`Any`: a column condition.)"""
    aliases = sa.select(
        tables.aliases.c.version_id,
        tables.aliases.c.alias.label("text"),
        sa.cast(sa.null(), sa.Float).label("value"),
    )
    metrics = sa.select(
        tables.metric_summaries.c.version_id,
        tables.metric_summaries.c.metric,
        tables.metric_summaries.c.newest,
    )
    return sa.union_all(
        aliases.where(is_selected(tables.aliases.c.version_id)),
        metrics.where(is_selected(tables.metric_summaries.c.version_id)),
    ).order_by("text")


def _of_adapter() -> sa.ColumnElement[bool]:
    return tables.versions.c.adapter_id == sa.bindparam("adapter_key")


@statement
def newest() -> Selection:
    return (
        sa.select(*shown_columns())
        .join_from(tables.versions, tables.adapters)
        .where(_of_adapter(), tables.versions.c.number <= sa.bindparam("newest"))
        .order_by(tables.versions.c.number.desc())
        .limit(sa.bindparam("count", type_=tables.versions.c.id.type))
    )


@statement
def aliases_and_metrics_of_newest() -> CombinedSelection:
    """Selects the aliases and metrics of the versions with the numbers `oldest` to `newest`."""
    return _aliases_and_metrics(
        lambda column: column.in_(
            sa.select(tables.versions.c.id).where(
                _of_adapter(),
                tables.versions.c.number.between(sa.bindparam("oldest"), sa.bindparam("newest")),
            )
        )
    )


@statement
def _aliases_and_metrics_of_one() -> CombinedSelection:
    return _aliases_and_metrics(lambda column: column == sa.bindparam("key"))


def info(tx: Reads, columns: Columns) -> VersionInfo:
    """The version in a row of these columns."""
    return version_of(columns, run_select(tx, _aliases_and_metrics_of_one, {"key": columns.id}))


def infos(tx: Reads, found: Sequence[Columns]) -> tuple[VersionInfo, ...]:
    """The versions in rows of these columns, in the same order, with one statement."""
    if not found:
        return ()
    related = aliases_and_metrics(tx, [columns.id for columns in found])
    return tuple(version_of(columns, related[columns.id]) for columns in found)


def aliases_and_metrics(tx: Reads, keys: Sequence[int]) -> Mapping[int, Sequence[Columns]]:
    """The aliases and metrics of the versions with these keys, in one statement."""
    size, parameters = values_of_keys(keys)
    related: dict[int, list[Columns]] = {key: [] for key in keys}
    for row in run_select(tx, _aliases_and_metrics_of_keys(size), parameters):
        related[row.version_id].append(row)
    return related


def by_keys(tx: Reads, keys: Sequence[int]) -> tuple[VersionInfo, ...]:
    """Versions in the order of `keys`, in two statements."""
    return infos(tx, columns_of(tx, keys))


def without_labels(tx: Reads, key: int) -> VersionInfo:
    """The version with this key, which has neither aliases nor metrics, in one statement."""
    return version_of(columns_of(tx, [key])[0], ())


def columns_of(tx: Reads, keys: Sequence[int]) -> tuple[Columns, ...]:
    """The columns of the versions with these keys, which must exist, in their order, in one statement."""
    if not keys:
        return ()
    size, parameters = values_of_keys(keys)
    found = {columns.id: columns for columns in run_select(tx, _of_keys(size), parameters)}
    return tuple(found[key] for key in keys)


def values_of_keys(keys: Sequence[int]) -> tuple[int, dict[str, object]]:
    """The number of parameters of a statement by several keys, and their values: the last key is repeated up
    to the size of a statement that is built already.
    """
    size = next((size for size in _SIZES if size >= len(keys)), len(keys))
    return size, {f"key_{at}": keys[min(at, len(keys) - 1)] for at in range(size)}


def key_parameters(size: int) -> list[sa.BindParameter[int]]:
    """The parameters of which `values_of_keys` has the values."""
    return [sa.bindparam(f"key_{at}", type_=tables.versions.c.id.type) for at in range(size)]


_SIZES = (1, 5, 20, 50, 100, 200)


@sized_statement(*_SIZES)
def _of_keys(size: int) -> Selection:
    """Selects versions by this number of keys."""
    query = sa.select(*shown_columns()).join_from(tables.versions, tables.adapters)
    return query.where(tables.versions.c.id.in_(key_parameters(size)))


@sized_statement(*_SIZES)
def _aliases_and_metrics_of_keys(size: int) -> CombinedSelection:
    """Selects the aliases and metrics of the versions with this number of keys."""
    keys = key_parameters(size)
    return _aliases_and_metrics(lambda column: column.in_(keys))
