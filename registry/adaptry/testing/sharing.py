"""What the many registries of one test process share: compiled SQL, and the processes that inspect weights.

A test opens a new registry and does little with it, so most of its time went into compiling the same
statements for another engine and into starting another child. A program opens one registry and keeps both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine, create_engine
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from adaptry.adapters.inspection.inspector import Inspector
from adaptry.storage.catalog import sqlite
from adaptry.storage.local import context


class _SameDialect(SQLiteDialect_pysqlite):
    """SQLAlchemy keeps compiled statements per dialect; our engines are set up alike, so theirs are equal."""

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameDialect)

    def __hash__(self) -> int:
        return hash(_SameDialect)


class _KeptInspector(Inspector):
    """Its children outlive the registries that use it."""

    def close(self) -> None:
        """Keeps the idle children for the next registry; they end with this process."""


@contextmanager
def shared_between_registries() -> Iterator[None]:
    """Registries that are opened in the block share both."""
    inspector = _KeptInspector()
    compiled: LRUCache[Any, Any] = LRUCache(5000)

    def engine_of(*args: Any, **options: Any) -> Engine:
        engine = create_engine(*args, execution_options={"compiled_cache": compiled}, **options)
        engine.dialect.__class__ = _SameDialect
        return engine

    with ExitStack() as stack:
        stack.callback(Inspector.close, inspector)
        stack.enter_context(patch.object(sqlite, "create_engine", engine_of))
        stack.enter_context(patch.object(context, "Inspector", lambda: inspector))
        yield
