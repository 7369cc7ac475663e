"""The newest schema as one SQL script, which creates a new SQLite database without running every migration.

Running fifteen migrations and importing Alembic takes two seconds; the script takes ten milliseconds. The
migrations remain the definition: the script is written from a database that they created (`script_of`), and a
test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.storage.catalog.lazy_modules import orm, sa

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SCRIPT = Path(__file__).with_suffix(".sql")
_END = ";\n"  # no statement contains this separator


def is_empty(connection: Connection) -> bool:
    """Whether this is an empty SQLite database, without another program's tables."""
    return (
        connection.dialect.name == "sqlite"
        and connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0
    )


def create(connection: Connection, schema: str) -> None:
    """Creates every table, records the schema number `schema`, and begins the first epoch."""
    import secrets  # an existing database does not need it

    for statement in _SCRIPT.read_text(encoding="utf-8").split(_END):
        if statement.strip():
            connection.exec_driver_sql(statement)
    connection.exec_driver_sql("INSERT INTO alembic_version (version_num) VALUES (?)", (schema,))
    connection.execute(
        sa.insert(orm.EpochRow).values(
            number=1,
            id=secrets.token_hex(8),
            began_at=datetime.now(UTC),
            floor=0,
            secret=secrets.token_hex(32),
        )
    )


def script_of(connection: Connection) -> str:
    """The script that creates this database's tables and indexes, as stored beside this module."""
    query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' ORDER BY rowid"
    return "".join(_strip_blank_lines(sql) + _END for (sql,) in connection.exec_driver_sql(query))


def _strip_blank_lines(statement: str) -> str:
    lines = (line.rstrip() for line in statement.splitlines())
    return "\n".join(line for line in lines if line)
