"""A whole catalog into another database: every row of every table, in one transaction, then compared.

The rows go as they are, keys and all, so that cursors, generations and the order of events go on. Nobody can
write to either catalog meanwhile.
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

_AT_ONCE = 1000


def copy(source: Transaction, target: Transaction) -> Mapping[str, int]:
    """How many rows of each table were copied from SQLite to PostgreSQL, which has none yet.

    Raises `Conflict` where the target has rows, `CorruptData` where a row came out other than it went in.
    """
    here, there = source.connection(), target.connection()
    tables = Row.metadata.sorted_tables  # what a row refers to comes before it
    _require_empty(there, tables)
    target.execute(delete(EpochRow))  # its first, which every new catalog has
    copied: dict[str, int] = {}
    for table in tables:
        seen = hashlib.sha256()
        copied[table.name] = 0
        for rows in _batches(here, table):
            _hash(seen, rows)
            there.execute(insert(table), [dict(row._mapping) for row in rows])
            copied[table.name] += len(rows)
        _compare(there, table, seen.digest())
        _go_on_numbering(here, there, table)
    return copied


def retire(source: Transaction, where: str) -> None:
    """From the commit on, nobody can write to the catalog moved away, even if it is open already."""
    names = [table.name for table in Row.metadata.sorted_tables]
    sqlite.forbid_changes(source.connection(), names, _moved_to(where))


def is_retired(source: Transaction, where: str) -> bool:
    """Whether all was moved there before. Raises `Conflict` where it was moved elsewhere."""
    reason = sqlite.why_forbidden(source.connection())
    if reason not in (None, _moved_to(where)):
        raise Conflict(f"{reason}; name that database, to finish the move")
    return reason is not None


def count(target: Transaction) -> Mapping[str, int]:
    """How many rows of each table there are."""
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
            f"that database has a catalog already (rows in {', '.join(full)}); give an empty database; if a"
            " move to it was cut short, drop it and make it again"
        )


def _batches(connection: Connection, table: Table) -> Iterator[Sequence[Any]]:
    """The rows in the order of their keys. (`Any`: rows are typed by all their columns.)"""
    query = select(table).order_by(*table.primary_key.columns).execution_options(stream_results=True)
    with connection.execute(query) as result:
        yield from result.partitions(_AT_ONCE)


def _hash(seen: Any, rows: Sequence[Any]) -> None:
    """(`Any`: hashlib names no type of its hashes.)"""
    for row in rows:
        seen.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))


def _compare(connection: Connection, table: Table, expected: bytes) -> None:
    found = hashlib.sha256()
    for rows in _batches(connection, table):
        _hash(found, rows)
    if found.digest() != expected:
        raise CorruptData(f"the rows of {table.name} came out other than they went in; nothing was moved")


def _go_on_numbering(here: Connection, there: Connection, table: Table) -> None:
    """Keys are never given twice, also those of rows that are gone."""
    key = table.autoincrement_column
    if key is None:
        return
    asked = text("SELECT seq FROM sqlite_sequence WHERE name = :table")
    given = here.execute(asked, {"table": table.name}).scalar()
    highest = here.execute(select(func.max(key))).scalar()
    last = max(given or 0, highest or 0)
    if last:
        there.execute(
            text("SELECT setval(pg_get_serial_sequence(:table, :key), :last)"),
            {"table": table.name, "key": key.name, "last": last},
        )
