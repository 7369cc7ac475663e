"""Stored texts of statements and tables equal SQLAlchemy's, and so do the conversions of values."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from sqlalchemy.dialects.sqlite import dialect

from adaptry.storage.catalog import prepared_changes, statement_texts
from adaptry.storage.catalog.rows import Row
from adaptry.storage.catalog.statement_compiler import (
    conversions_of,
    prepared_statements,
    write_tables,
    write_texts,
)
from adaptry.storage.catalog.statement_texts import BINDINGS, CONVERSIONS, PreparedStatement

REMEDY = "run: python tests/storage/write_sqlite_schema.py"
STORED = {
    "moment": ["2026-01-31 12:30:01.000250", "2026-01-31 00:00:00.000000", None],
    "boolean": [0, 1, None],
}
SENT: dict[str, list[Any]] = {
    "moment": [
        datetime(2026, 1, 31, 12, 30, 1, 250, UTC),
        datetime(999, 1, 31, tzinfo=timezone(timedelta(hours=2))),
        None,
    ],
    "boolean": [True, False, None],
    "float": [1, 0.5, None],
}


def test_the_statements_equal_those_compiled_by_sqlalchemy() -> None:
    assert statement_texts.FILE.read_text(encoding="utf-8") == write_texts(), REMEDY


def test_the_tables_equal_those_of_sqlalchemy() -> None:
    assert prepared_changes.FILE.read_text(encoding="utf-8") == write_tables(), REMEDY


def test_statements_named_elsewhere_have_texts() -> None:
    stored = {one.name for one in prepared_statements()}

    named = [one for one in vars(statement_texts).values() if isinstance(one, PreparedStatement)]
    assert named
    assert {one.name for one in named} <= stored


def test_values_are_read_as_by_sqlalchemy() -> None:
    seen = set()
    for statement in prepared_statements():
        kinds = statement.text.columns.values()
        for kind, convert in zip(kinds, conversions_of(statement.definition), strict=True):
            seen.add(kind)
            for value in STORED[kind] if kind else []:
                assert convert is not None
                assert CONVERSIONS[kind or ""](value) == convert(value)
    assert seen == {None, *CONVERSIONS}


def sent_columns() -> Iterator[tuple[str, Any]]:
    """The kind and type of every column that has a kind. (`Any`: of any value.)"""
    for name, text in prepared_changes.table_texts().items():
        for column, kind in text.columns.items():
            if kind:
                yield kind, Row.metadata.tables[name].c[column].type


def test_values_are_sent_as_by_sqlalchemy() -> None:
    kinds = set()
    for kind, type in sent_columns():
        kinds.add(kind)
        convert = type.dialect_impl(dialect()).bind_processor(dialect())
        assert [BINDINGS[kind](value) for value in SENT[kind]] == [convert(value) for value in SENT[kind]]
    assert kinds == BINDINGS.keys()
