"""Compiles a statement of SQLAlchemy to SQLite's own text, with the conversions of its columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Boolean, ColumnElement, CompoundSelect, Select, Update
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.types import TypeEngine

from adaptry.storage.catalog.migrate import KNOWN
from adaptry.storage.catalog.rows import Moment
from adaptry.storage.catalog.statement_texts import NAMED, StatementText, encode

_DIALECT = dialect()
Statement = Select[Any] | CompoundSelect[Any] | Update
"""(`Any`: statements are typed by their columns.)"""
Conversion = Callable[[Any], object]
"""Makes a value of SQLAlchemy of one of SQLite, or the reverse. (`Any`: of any column.)"""


def compile_statement(statement: Statement) -> StatementText:
    """The statement's text. A column has a kind only if it has one in `CONVERSIONS`."""
    return compile_query(statement)[0]


def compile_query(statement: Statement) -> tuple[StatementText, Mapping[str, Conversion]]:
    """The same, with SQLAlchemy's own conversions of its parameters, where they need one."""
    plain = statement.compile(dialect=_DIALECT)
    asked = {name: None for name, parameter in plain.binds.items() if parameter.required}
    # Expands `IN` lists, which are constants: no statement here has a list as parameter.
    compiled = plain.construct_expanded_state(asked)
    names = tuple(compiled.positiontup or ())
    text = StatementText(
        compiled.statement,
        names,
        {name: compiled.parameters[name] for name in names if name not in asked},
        {str(column.key): _kind(column) for column in _columns(statement)},
    )
    processors = {name: _to_sqlite(plain.binds[name].type) for name in asked}
    return text, {name: processor for name, processor in processors.items() if processor}


def _to_sqlite(type: TypeEngine[Any]) -> Conversion | None:
    """(`Any`: of any type.)"""
    return type.dialect_impl(_DIALECT).bind_processor(_DIALECT)


def conversions_of(statement: Statement) -> Sequence[Conversion | None]:
    """SQLAlchemy's own conversion of each column."""
    return [
        column.type.dialect_impl(_DIALECT).result_processor(_DIALECT, None) for column in _columns(statement)
    ]


def write_texts() -> str:
    """The content of `statement_texts.json`."""
    texts = {one: compile_statement(one.definition()) for one in NAMED}
    for one, text in texts.items():
        processors = conversions_of(one.definition())
        for (column, kind), processor in zip(text.columns.items(), processors, strict=True):
            assert kind or not processor, f"{one}: CONVERSIONS has no kind for the column {column}"
    return encode(KNOWN[-1], texts)


def _columns(statement: Statement) -> Iterable[ColumnElement[Any]]:
    return () if isinstance(statement, Update) else statement.selected_columns


def _kind(column: ColumnElement[Any]) -> str | None:
    if isinstance(column.type, Moment):
        return "moment"
    return "boolean" if isinstance(column.type, Boolean) else None
