"""Prepared changes: the inserts and updates of every push, compiled once like prepared reads.

On SQLite they run on the transaction's own connection, in a tenth of the time that a session needs to track a
new row. What an insert needs to know of a table is stored in `table_texts.json`, so none imports SQLAlchemy.
On PostgreSQL, SQLAlchemy runs them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.lazy_modules import orm
from adaptry.storage.catalog.prepared import compiled, definition_of, sqlite_driver
from adaptry.storage.catalog.statement_texts import BINDINGS, PreparedStatement

if TYPE_CHECKING:
    from sqlalchemy import Delete, Table, Update
    from sqlmodel import Session

Changes: TypeAlias = "Update | PreparedStatement[Update] | PreparedStatement[Delete]"
FILE = Path(__file__).with_name("table_texts.json")


@dataclass(frozen=True, slots=True)
class TableText:
    """A table: its columns, each with None or a name in `BINDINGS`; the defaults of its rows; and the column
    of its key if the database gives one.
    """

    columns: Mapping[str, str | None]
    defaults: Mapping[str, object]
    key: str | None


def insert_new(tx: Session, table: str, values: Mapping[str, object]) -> int:
    """Inserts a row of these values and the defaults of its table; returns its key if the database gives one,
    else 0.
    """
    return insert_values(tx, table, [{**table_texts()[table].defaults, **values}])


def insert_values(tx: Session, table: str, rows: Sequence[Mapping[str, object]]) -> int:
    """Inserts rows with the same columns; returns the last one's key if the database gives one, else 0."""
    driver = sqlite_driver(tx)  # with other rows that these refer to
    if driver is not None:
        return _compiled_insert(table, tuple(rows[0])).run(driver, rows)
    definition: Table = orm.Row.metadata.tables[table]
    connection = tx.connection()
    if len(rows) > 1:
        connection.execute(definition.insert(), rows)
        return 0
    made = connection.execute(definition.insert().values(rows[0])).inserted_primary_key
    return int(made[0]) if made and isinstance(made[0], int) else 0


def change(tx: Session, statement: Changes, parameters: Mapping[str, object]) -> int:
    """Runs an update or deletion that is built once; returns the number of changed rows."""
    driver = sqlite_driver(tx)
    if driver is not None:
        return compiled(statement).change(driver, parameters)
    return tx.connection().execute(definition_of(statement), parameters).rowcount


def change_each(tx: Session, statement: Changes, parameters: Sequence[Mapping[str, object]]) -> None:
    """Runs an update that is built once for each of the parameters."""
    driver = sqlite_driver(tx)
    if driver is not None:
        compiled(statement).change_each(driver, parameters)
    elif parameters:
        tx.connection().execute(definition_of(statement), parameters)


def encode(texts: Mapping[str, TableText]) -> str:
    """The content of the file."""
    return json.dumps({name: asdict(text) for name, text in texts.items()}, indent=1) + "\n"


class _CompiledInsert:
    def __init__(self, table: str, names: Sequence[str]) -> None:
        columns = ", ".join(f'"{name}"' for name in names)
        self._sql = f'INSERT INTO "{table}" ({columns}) VALUES ({", ".join("?" * len(names))})'
        kinds = table_texts()[table].columns
        self._columns = [(name, BINDINGS[kind] if (kind := kinds[name]) else None) for name in names]

    def run(self, connection: sqlite3.Connection, rows: Sequence[Mapping[str, object]]) -> int:
        if len(rows) > 1:
            connection.executemany(self._sql, map(self._values, rows))
            return 0
        return connection.execute(self._sql, self._values(rows[0])).lastrowid or 0

    def _values(self, row: Mapping[str, object]) -> list[object]:
        return [row[name] if convert is None else convert(row[name]) for name, convert in self._columns]


@cache
def table_texts() -> Mapping[str, TableText]:
    """All tables, by name."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: TableText(**text) for name, text in found.items()}


@lru_cache(maxsize=256)
def _compiled_insert(table: str, names: tuple[str, ...]) -> _CompiledInsert:
    return _CompiledInsert(table, names)
