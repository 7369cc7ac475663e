"""Bringing a database's schema up to date when it is opened: Alembic's migrations, in one transaction.

Two processes that start at once are fine: the second waits, then finds nothing to do. A schema newer than
this program knows is refused, because writing to it would break what the newer one relies on.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from adaptry.catalog.kinds import Database
from adaptry.errors import Incompatible

KNOWN = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010")
"""Every schema there ever was, oldest first. Written here so that an up-to-date database opens without Alembic."""


def migrate(database: Database) -> None:
    """Raises `Incompatible` for a schema from the future."""
    with database.readers.connect() as connection:
        if schema_of(connection) == KNOWN[-1]:
            return
    with database.writers.begin() as connection:
        if schema_of(connection) != KNOWN[-1]:
            _upgrade(connection)
            database.settle(connection)


def schema_of(connection: Connection) -> str | None:
    """The schema's number, None before the first. Raises `Incompatible` for one from the future."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    schema = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if schema is not None and schema not in KNOWN:
        raise Incompatible(
            f"this registry's database has schema {schema} and this Adaptry knows up to {KNOWN[-1]}: upgrade adaptry"
        )
    return schema


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "adaptry.catalog:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
