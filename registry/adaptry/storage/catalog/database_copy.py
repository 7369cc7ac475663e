"""Copies a whole catalog into another database: every row of every table, in one transaction, then compares
it.

Rows are copied unchanged, including keys, so that cursors, generations and the order of events continue.
Nobody can write to either catalog during the copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, text

from adaptry.core.errors import Conflict, CorruptData
from adaptry.storage.catalog import sqlite
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import EpochRow, Row

_BATCH = 1000


def copy(source: Transaction, target: Transaction) -> Mapping[str, int]:
    """Copies all rows from SQLite to an empty PostgreSQL database; returns how many of each table.

    Raises `Conflict` if the target has rows, `CorruptData` if a copied row differs from its original.
    """
    here, there = source.connection(), target.connection()
    tables = Row.metadata.sorted_tables  # a row comes after the rows that it refers to
    _require_empty(there, tables)
    target.execute(delete(EpochRow))  # the first epoch, which every new catalog has
    copied: dict[str, int] = {}
    for table in tables:
        seen = hashlib.sha256()
        copied[table.name] = 0
        for rows in _batches(here, table):
            _hash(seen, rows)
            there.execute(insert(table), [dict(row._mapping) for row in rows])
            copied[table.name] += len(rows)
        _compare(there, table, seen.digest())
        _copy_key_counters(here, there, table)
        # PostgreSQL would do this minutes later; until then, it joins large tables row by row.
        there.execute(text(f'ANALYZE "{table.name}"'))
    return copied


def retire(source: Transaction, where: str) -> None:
    """Marks the catalog as moved. After the commit, no process can write to it, even one that already has it
    open.
    """
    names = [table.name for table in Row.metadata.sorted_tables]
    sqlite.forbid_changes(source.connection(), names, _moved_to(where))


def is_retired(source: Transaction, where: str) -> bool:
    """Whether everything was already moved there. Raises `Conflict` if it was moved elsewhere."""
    reason = sqlite.why_forbidden(source.connection())
    if reason not in (None, _moved_to(where)):
        raise Conflict(f"{reason}; name that database to finish the move")
    return reason is not None


def count(target: Transaction) -> Mapping[str, int]:
    """The number of rows of each table."""
    there = target.connection()
    tables = Row.metadata.sorted_tables
    return {
        table.name: there.execute(select(func.count()).select_from(table)).scalar_one() for table in tables
    }


def _moved_to(where: str) -> str:
    return f"this registry's catalog has moved to {where}"


def _require_empty(connection: Connection, tables: Sequence[Table]) -> None:
    full = [
        table.name
        for table in tables
        if table.name != EpochRow.__tablename__ and connection.execute(select(table).limit(1)).first()
    ]
    if full:
        raise Conflict(
            f"that database already has a catalog (rows in {', '.join(full)}); use an empty database; if"
            " a move to it was interrupted, drop it and create it again"
        )


def _batches(connection: Connection, table: Table) -> Iterator[Sequence[Any]]:
    """The rows in the order of their keys. (`Any`: rows are typed by all their columns.)"""
    query = select(table).order_by(*table.primary_key.columns).execution_options(stream_results=True)
    with connection.execute(query) as result:
        yield from result.partitions(_BATCH)


def _hash(seen: Any, rows: Sequence[Any]) -> None:
    """(`Any`: hashlib names no type of its hashes.)"""
    for row in rows:
        seen.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))


def _compare(connection: Connection, table: Table, expected: bytes) -> None:
    found = hashlib.sha256()
    for rows in _batches(connection, table):
        _hash(found, rows)
    if found.digest() != expected:
        raise CorruptData(f"the copied rows of {table.name} differ from the originals; nothing was moved")


def _copy_key_counters(here: Connection, there: Connection, table: Table) -> None:
    """Copies the key counters, so that keys of deleted rows are not reused."""
    key = table.autoincrement_column
    if key is None:
        return
    statement = text("SELECT seq FROM sqlite_sequence WHERE name = :table")
    given = here.execute(statement, {"table": table.name}).scalar()
    highest = here.execute(select(func.max(key))).scalar()
    last = max(given or 0, highest or 0)
    if last:
        there.execute(
            text("SELECT setval(pg_get_serial_sequence(:table, :key), :last)"),
            {"table": table.name, "key": key.name, "last": last},
        )
