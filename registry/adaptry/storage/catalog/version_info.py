"""Versions as `VersionInfo`: their columns, aliases and metrics.

Every follower of an alias queries this, so it must be cheap: statements are built once, since building one
takes longer than running it on SQLite, and plain columns are read, without entities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import (
    BindParameter,
    CompoundSelect,
    Float,
    Row,
    Select,
    Table,
    bindparam,
    exists,
    null,
    select,
    union_all,
)
from sqlalchemy import cast as sql_cast

from adaptry.registry.records import VersionInfo
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import (
    AdapterRow,
    AliasRow,
    DamagedRevisionRow,
    MetricSummaryRow,
    VersionRow,
)
from adaptry.storage.catalog.rows import Row as Entity
from adaptry.storage.catalog.shown_versions import version_of

Columns = Row[Any]
"""A selected row. (`Any`: SQLAlchemy would need a type parameter for each column.)"""


def table_of(entity: type[Entity]) -> Table:
    """An entity's table, to select columns instead of entities."""
    return cast(Table, vars(entity)["__table__"])


_ADAPTERS, _VERSIONS = table_of(AdapterRow), table_of(VersionRow)
_ALIASES, _METRICS = table_of(AliasRow), table_of(MetricSummaryRow)

_DAMAGE = table_of(DamagedRevisionRow)
_IS_DAMAGED = exists().where(_DAMAGE.c.revision == _VERSIONS.c.digest).label("is_damaged")

SHOWN = (_ADAPTERS.c.name, *_VERSIONS.c, _IS_DAMAGED)
"""The columns that `info` and `by_keys` need."""


def _beside(is_selected: Any) -> CompoundSelect[Any]:
    """Selects aliases, without a value, and metrics with their newest value. (`Any`: a column condition.)"""
    aliases = select(
        _ALIASES.c.version_id, _ALIASES.c.alias.label("text"), sql_cast(null(), Float).label("value")
    )
    metrics = select(_METRICS.c.version_id, _METRICS.c.metric, _METRICS.c.newest)
    return union_all(
        aliases.where(is_selected(_ALIASES.c.version_id)), metrics.where(is_selected(_METRICS.c.version_id))
    ).order_by("text")


_OF_ADAPTER = _VERSIONS.c.adapter_id == bindparam("adapter_key")
NEWEST = (
    select(*SHOWN)
    .join_from(_VERSIONS, _ADAPTERS)
    .where(_OF_ADAPTER, _VERSIONS.c.number <= bindparam("newest"))
    .order_by(_VERSIONS.c.number.desc())
    .limit(bindparam("count", type_=_VERSIONS.c.id.type))
)
BESIDE_NEWEST = _beside(
    lambda column: column.in_(
        select(_VERSIONS.c.id).where(
            _OF_ADAPTER, _VERSIONS.c.number.between(bindparam("oldest"), bindparam("newest"))
        )
    )
)
"""What is beside the versions with the numbers `oldest` to `newest`."""

_BESIDE_ONE = _beside(lambda column: column == bindparam("key"))


def info(tx: Reads, columns: Columns) -> VersionInfo:
    """The version of these columns."""
    return version_of(columns, run_select(tx, _BESIDE_ONE, {"key": columns.id}))


def infos(tx: Reads, found: Sequence[Columns]) -> tuple[VersionInfo, ...]:
    """The versions of these columns, in their order, in one statement."""
    if not found:
        return ()
    beside = rows_beside(tx, [columns.id for columns in found])
    return tuple(version_of(columns, beside[columns.id]) for columns in found)


def rows_beside(tx: Reads, keys: Sequence[int]) -> Mapping[int, Sequence[Columns]]:
    """The aliases and metrics of the versions with these keys, in one statement."""
    size, parameters = values_of_keys(keys)
    beside: dict[int, list[Columns]] = {key: [] for key in keys}
    for row in run_select(tx, _of_keys(size)[1], parameters):
        beside[row.version_id].append(row)
    return beside


def by_keys(tx: Reads, keys: Sequence[int]) -> tuple[VersionInfo, ...]:
    """Versions in the order of `keys`, in two statements."""
    return infos(tx, columns_of(tx, keys))


def columns_of(tx: Reads, keys: Sequence[int]) -> tuple[Columns, ...]:
    """The columns of the versions with these keys, which must exist, in their order, in one statement."""
    if not keys:
        return ()
    size, parameters = values_of_keys(keys)
    found = {columns.id: columns for columns in run_select(tx, _of_keys(size)[0], parameters)}
    return tuple(found[key] for key in keys)


def values_of_keys(keys: Sequence[int]) -> tuple[int, dict[str, object]]:
    """How many parameters a statement by several keys has, and their values: the last key is repeated up to
    the size of a statement that is built already.
    """
    size = next((size for size in _SIZES if size >= len(keys)), len(keys))
    return size, {f"key_{at}": keys[min(at, len(keys) - 1)] for at in range(size)}


def key_parameters(size: int) -> list[BindParameter[int]]:
    """The parameters of which `values_of_keys` has the values."""
    return [bindparam(f"key_{at}", type_=_VERSIONS.c.id.type) for at in range(size)]


_SIZES = (1, 5, 20, 50, 100, 200)


@lru_cache(maxsize=2 * len(_SIZES))
def _of_keys(size: int) -> tuple[Select[Any], CompoundSelect[Any]]:
    """Selects versions by this number of keys, with their related rows. (`Any`: typed by their columns.)"""
    keys = key_parameters(size)
    shown = select(*SHOWN).join_from(_VERSIONS, _ADAPTERS).where(_VERSIONS.c.id.in_(keys))
    return shown, _beside(lambda column: column.in_(keys))
