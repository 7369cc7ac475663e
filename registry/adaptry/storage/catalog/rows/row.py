"""Shared by all rows: their base class, constraint names for migrations, and types that are equal in both
databases.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData, TextClause, TypeDecorator
from sqlalchemy.orm import registry
from sqlmodel import SQLModel


class Moment(TypeDecorator[datetime]):
    """A point in time, in UTC in both databases."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


LONG = BigInteger().with_variant(Integer, "sqlite")
"""The type of keys that may exceed 2³¹. (SQLite's are as large, but count up only if declared `INTEGER`.)"""

_ON_POSTGRES = "on_postgres"  # in the `info` of an index
KEYS_GIVEN_ONCE = {"sqlite_autoincrement": True}
"""Options of tables ordered by key: keys of deleted rows are not reused. (PostgreSQL never reuses them.)"""


def rows_where(condition: TextClause, on_postgres: TextClause | None = None) -> dict[str, Any]:
    """The options of an index of the rows that meet a condition. (`Any`: keywords.)

    To check an option of a dialect, SQLAlchemy imports the dialect: 3 MB for PostgreSQL's. So the condition
    for PostgreSQL is kept in `info` until such a catalog is opened (`name_postgres_conditions`).
    """
    return {
        "sqlite_where": condition,
        "info": {_ON_POSTGRES: condition if on_postgres is None else on_postgres},
    }


def name_postgres_conditions() -> None:
    """Makes the conditions of indexes options of PostgreSQL's dialect."""
    for table in Row.metadata.tables.values():
        for index in table.indexes:
            if _ON_POSTGRES in index.info:
                index.dialect_options["postgresql"]["where"] = index.info[_ON_POSTGRES]


# A later migration can change only named constraints.
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Row(SQLModel, registry=registry(metadata=MetaData(naming_convention=_NAMES))):
    """The base class of our tables, with its own metadata, so that they never mix with an embedding
    program's.

    Rows are never validated, so pydantic compiles no validator for their classes: with 45 tables, that is a
    tenth of a second in every command on a folder.
    """

    model_config = {"defer_build": True}  # pydantic reads it; SQLModel declares it
