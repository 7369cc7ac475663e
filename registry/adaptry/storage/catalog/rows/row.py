"""What all rows share: their root, constraint names for migrations, and types both databases keep alike."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData, TypeDecorator
from sqlalchemy.orm import registry
from sqlmodel import SQLModel


class Moment(TypeDecorator[datetime]):
    """A point in time, in UTC whatever the database keeps."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


LONG = BigInteger().with_variant(Integer, "sqlite")
"""Of keys that may pass 2³¹. (SQLite's are as large, but count up only if declared `INTEGER`.)"""

KEYS_GIVEN_ONCE = {"sqlite_autoincrement": True}
"""Of tables ordered by their keys: none is given again, even of a deleted row. (PostgreSQL never does.)"""

# A later migration can only change what has a name.
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Row(SQLModel, registry=registry(metadata=MetaData(naming_convention=_NAMES))):
    """The root of our tables: a metadata of our own, so that they never mix with an embedding program's."""
