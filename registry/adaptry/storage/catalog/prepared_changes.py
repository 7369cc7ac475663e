"""Prepared changes: the inserts and updates of every push, compiled once like prepared reads.

On SQLite they run on the transaction's own connection, in a tenth of the time that a session needs to track a
new row. The properties of tables that inserts need are stored in `table_texts.json`, so no insert imports
SQLAlchemy. On PostgreSQL, changes are sent without waiting for their answers (`postgres_writes`).
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
from adaptry.storage.catalog.prepared import compiled, driver_of
from adaptry.storage.catalog.statement_texts import BINDINGS, PreparedStatement

if TYPE_CHECKING:
    from sqlalchemy import Delete, Update
    from sqlmodel import Session

    from adaptry.storage.catalog.postgres_writes import PostgresWriter

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
    else 0. PostgreSQL takes a round trip for the key.
    """
    row = {**table_texts()[table].defaults, **values}
    driver = _writing_driver(tx)  # with the other rows that this one refers to
    if isinstance(driver, sqlite3.Connection):
        return _compiled_insert(table, tuple(row)).run(driver, [row])
    return driver.insert_keyed(table, row)


def insert_values(tx: Session, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Inserts rows with the same columns, and no defaults."""
    driver = _writing_driver(tx)
    if isinstance(driver, sqlite3.Connection):
        _compiled_insert(table, tuple(rows[0])).run(driver, rows)
    else:
        driver.insert(table, rows)


def change(tx: Session, statement: Changes, parameters: Mapping[str, object]) -> None:
    """Runs an update or deletion that is built once."""
    driver = _writing_driver(tx)
    if isinstance(driver, sqlite3.Connection):
        compiled(statement).change(driver, parameters)
    else:
        driver.change(statement, parameters)


def count_changed(tx: Session, statement: Changes, parameters: Mapping[str, object]) -> int:
    """The same; returns the number of changed rows, for which PostgreSQL takes a round trip."""
    driver = _writing_driver(tx)
    if isinstance(driver, sqlite3.Connection):
        return compiled(statement).change(driver, parameters)
    return driver.count_changed(statement, parameters)


def change_each(tx: Session, statement: Changes, parameters: Sequence[Mapping[str, object]]) -> None:
    """Runs an update that is built once for each of the parameters."""
    driver = _writing_driver(tx)
    if isinstance(driver, sqlite3.Connection):
        compiled(statement).change_each(driver, parameters)
        return
    for each in parameters:
        driver.change(statement, each)


def _writing_driver(tx: Session) -> sqlite3.Connection | PostgresWriter:
    driver = driver_of(tx)
    assert driver is not None, "this transaction only reads"
    return driver


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
