"""Migrates a database's schema when it is opened: Alembic's migrations, in one transaction.

A new SQLite database gets the newest schema from one script instead (`sqlite_schema`). If two processes start
at once, the second waits and then finds nothing to do. A schema newer than this program is refused, because
writing to it could violate rules of the newer program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.core.errors import Conflict, ProtocolMismatch
from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.storage.catalog.dialect import DatabaseDialect
from adaptry.storage.catalog.lazy_modules import orm, sa

if TYPE_CHECKING:
    from sqlalchemy import Connection

KNOWN = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
    "0017",
    "0018",
    "0019",
    "0020",
    "0021",
    "0022",
    "0023",
    "0024",
    "0025",
    "0026",
    "0027",
    "0028",
    "0029",
    "0030",
    "0031",
    "0032",
    "0033",
    "0034",
    "0035",
    "0036",
    "0037",
)
"""Every schema, oldest first. Listed here so that an up-to-date database opens without Alembic."""
_NUMBER = lazy_pattern(r"\d{4}")
_FIRST = "adapters"  # this table is in every schema
_REMEDY = "give Adaptry its own database"


def migrate(database: DatabaseDialect) -> None:
    """Updates the schema of a catalog. Raises `ProtocolMismatch` for a newer schema, `Conflict` for another
    program's database.
    """
    if database.has_schema(KNOWN[-1]):
        return
    with database.readers.connect() as connection:
        if schema_of(connection) == KNOWN[-1]:
            return
    from adaptry.storage.catalog import sqlite_schema  # only for a new or older database

    with database.writers.begin() as connection:
        if schema_of(connection) != KNOWN[-1]:
            if sqlite_schema.is_empty(connection):
                sqlite_schema.create(connection, KNOWN[-1])
            else:
                _require_ours(connection)
                upgrade(connection)
            database.after_migrate(connection)


def schema_of(connection: Connection) -> str | None:
    """The schema's number, None before the first. Raises `ProtocolMismatch` for a newer one, `Conflict`."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    schema = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    if schema is not None and not _NUMBER.fullmatch(schema):
        raise Conflict(f"this database is another program's (its schema is {schema[:40]!r}); {_REMEDY}")
    if schema is not None and schema not in KNOWN:
        raise ProtocolMismatch(
            f"this registry's database has schema {schema} and this Adaptry supports up to {KNOWN[-1]}:"
            " upgrade adaptry"
        )
    return schema


def _require_ours(connection: Connection) -> None:
    """Raises `Conflict` if a table that we would create exists already, or one that we created is missing."""
    there = set(sa.inspect(connection).get_table_names())
    if schema_of(connection) is None:
        others = sorted(there & set(orm.Row.metadata.tables))
        if others:
            raise Conflict(f"this database has a table {others[0]} that another program created; {_REMEDY}")
    elif _FIRST not in there:
        raise Conflict(f"this database is another program's (it has no table {_FIRST}); {_REMEDY}")


def upgrade(connection: Connection) -> None:
    """Runs the missing migrations."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "adaptry.storage.catalog:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
