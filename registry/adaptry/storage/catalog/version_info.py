"""Versions as `VersionInfo`: their columns, aliases and metrics.

Every follower of an alias queries this, so it must be cheap: statements are built once, since building one
takes longer than running it on SQLite, and plain columns are read, without entities.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import (
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

from adaptry.core.digest import Digest
from adaptry.core.lifecycle import State
from adaptry.core.refs import AdapterName
from adaptry.registry.records import BaseStatus, StateRecord, VersionInfo
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.encoding import decode_list
from adaptry.storage.catalog.prepared import PreparedReads, Query, run_prepared, sqlite_driver
from adaptry.storage.catalog.rows import (
    AdapterRow,
    AliasRow,
    DamagedRevisionRow,
    MetricSummaryRow,
    VersionRow,
)
from adaptry.storage.catalog.rows import Row as Entity

Columns = Row[Any]
"""A selected row. (`Any`: SQLAlchemy would need a type parameter for each column.)"""


def table_of(entity: type[Entity]) -> Table:
    """An entity's table, to select columns instead of entities."""
    return cast(Table, vars(entity)["__table__"])


def run_select(tx: Reads, statement: Query, asked: Mapping[str, object]) -> Sequence[Columns]:
    """The rows of a statement on tables, including this transaction's changes."""
    if isinstance(tx, PreparedReads):
        return tx.select(statement, asked)
    driver = sqlite_driver(tx)
    if driver is not None:  # takes a tenth of the time of SQLAlchemy's own execution
        return run_prepared(driver, statement, asked)
    return tx.connection().execute(statement, asked).all()


_ADAPTERS, _VERSIONS = table_of(AdapterRow), table_of(VersionRow)
_ALIASES, _METRICS = table_of(AliasRow), table_of(MetricSummaryRow)

_DAMAGE = table_of(DamagedRevisionRow)
_IS_DAMAGED = exists().where(_DAMAGE.c.revision == _VERSIONS.c.digest).label("is_damaged")

SHOWN = (_ADAPTERS.c.name, *_VERSIONS.c, _IS_DAMAGED)
"""The columns that `info` and `by_keys` need."""


def _beside(is_asked: Any) -> CompoundSelect[Any]:
    """Selects aliases, without a value, and metrics with their newest value. (`Any`: a column condition.)"""
    aliases = select(
        _ALIASES.c.version_id, _ALIASES.c.alias.label("text"), sql_cast(null(), Float).label("value")
    )
    metrics = select(_METRICS.c.version_id, _METRICS.c.metric, _METRICS.c.newest)
    return union_all(
        aliases.where(is_asked(_ALIASES.c.version_id)), metrics.where(is_asked(_METRICS.c.version_id))
    ).order_by("text")


_BY_KEY = select(*SHOWN).join_from(_VERSIONS, _ADAPTERS).where(_VERSIONS.c.id == bindparam("key"))
_BESIDE_ONE = _beside(lambda column: column == bindparam("key"))


def info(tx: Reads, columns: Columns) -> VersionInfo:
    """The version of these columns."""
    return _info(columns, run_select(tx, _BESIDE_ONE, {"key": columns.id}))


def by_key(tx: Reads, key: int) -> VersionInfo:
    """The version with that key, which must exist."""
    (columns,) = run_select(tx, _BY_KEY, {"key": key})
    return info(tx, columns)


def by_keys(tx: Transaction, keys: Sequence[int]) -> tuple[VersionInfo, ...]:
    """Versions in the order of `keys`, in two statements."""
    if not keys:
        return ()
    size = next((size for size in _SIZES if size >= len(keys)), len(keys))
    by_keys, beside_keys = _of_keys(size)
    # The last key is repeated up to the size of a statement that is built already.
    asked = {f"key_{at}": keys[min(at, len(keys) - 1)] for at in range(size)}
    found = {columns.id: columns for columns in run_select(tx, by_keys, asked)}
    beside = defaultdict(list)
    for row in run_select(tx, beside_keys, asked):
        beside[row.version_id].append(row)
    return tuple(_info(found[key], beside[key]) for key in keys)


_SIZES = (5, 20, 50, 100, 200)


@lru_cache(maxsize=2 * len(_SIZES))
def _of_keys(size: int) -> tuple[Select[Any], CompoundSelect[Any]]:
    """Selects the versions with so many keys, and what is beside them. (`Any`: typed by their columns.)"""
    keys = [bindparam(f"key_{at}", type_=_VERSIONS.c.id.type) for at in range(size)]
    shown = select(*SHOWN).join_from(_VERSIONS, _ADAPTERS).where(_VERSIONS.c.id.in_(keys))
    return shown, _beside(lambda column: column.in_(keys))


def _info(row: Columns, beside: Iterable[Row[Any]]) -> VersionInfo:
    texts = [(str(pair.text), pair.value) for pair in beside]
    return VersionInfo(
        name=AdapterName.parse(row.name),
        number=row.number,
        digest=Digest(row.digest),
        state=cast(State, row.state),
        standing=_state_record(row),
        created_at=row.created_at,
        created_by=row.created_by,
        method=row.method,
        rank=row.rank,
        targets=decode_list(row.targets),
        traits=decode_list(row.traits),
        parameters=row.parameters,
        size=row.size,
        weights=Digest(row.weights),
        base_id=Digest(row.base_id) if row.base_id else None,
        base_name=row.base_name,
        base_status=cast(BaseStatus, row.base_status),
        aliases=tuple(text for text, value in texts if value is None),
        metrics={text: value for text, value in texts if value is not None},
        findings=row.findings,
        downloads=row.downloads,
        is_damaged=bool(row.is_damaged),
    )


def _state_record(row: Columns) -> StateRecord | None:
    if row.state_generation == 0:
        return None
    return StateRecord(
        generation=row.state_generation,
        reason=row.state_reason,
        successor=row.state_successor,
        at=row.state_at,
        by=row.state_by,
    )
