"""A writer's part of a transaction on the driver of the database, with a session only if one is needed.

A push runs only prepared statements. A session would import SQLAlchemy, and creating it takes longer than a
statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from adaptry.storage.catalog.lazy_modules import sm
from adaptry.storage.catalog.prepared import DRIVER

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlmodel import Session

    from adaptry.storage.catalog.postgres_writes import PostgresWriter

Driver: TypeAlias = "sqlite3.Connection | PostgresWriter"


class WriterTransaction:
    """Has the methods of a `Session`. The session and prepared statements see each other's changes.

    `connect` gives SQLAlchemy's view of the same connection. The session makes its own savepoint.
    """

    def __init__(self, driver: Driver, connect: Callable[[], Connection]) -> None:
        self.info: dict[str, Any] = {DRIVER: driver}
        """As of a session. (`Any`: each key has its type.)"""
        self._connect = connect
        self._session: Session | None = None

    def __getattr__(self, name: str) -> Any:
        """(`Any`: whatever a session has.)"""
        if self._session is None:
            self._session = sm.Session(
                self._connect(), expire_on_commit=False, join_transaction_mode="create_savepoint"
            )
        return getattr(self._session, name)

    def flush(self) -> None:
        if self._session is not None:
            self._session.flush()

    def commit(self) -> None:
        """Makes the session's changes part of the transaction."""
        if self._session is not None:
            self._session.commit()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def invalidate(self) -> None:
        if self._session is not None:
            self._session.invalidate()
