"""Compiles a statement of SQLAlchemy to SQLite's own text, with the kinds of its parameters and columns; and
writes the stored texts of all prepared statements and tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, TypeGuard

from sqlalchemy import Boolean, Column, ColumnElement, Delete, Float, Table, Update
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.types import TypeEngine

from adaptry.storage import catalog
from adaptry.storage.catalog import prepared_changes, rows, statement_texts
from adaptry.storage.catalog.migrate import KNOWN
from adaptry.storage.catalog.prepared_changes import TableText
from adaptry.storage.catalog.rows import Moment, Row
from adaptry.storage.catalog.statement_texts import (
    PreparedStatement,
    SizedStatement,
    Statement,
    StatementText,
)

_DIALECT = dialect()
Conversion = Callable[[Any], object]
"""Makes a value of SQLAlchemy of one of SQLite, or the reverse. (`Any`: of any column.)"""


def compile_statement(statement: Statement) -> StatementText:
    """The statement's text. A column or parameter has a kind only if its values are converted."""
    plain = statement.compile(dialect=_DIALECT)
    asked = {name: None for name, parameter in plain.binds.items() if parameter.required}
    # Expands `IN` lists, which are constants: no statement here has a list as parameter.
    compiled = plain.construct_expanded_state(asked)
    names = tuple(compiled.positiontup or ())
    types = {name: parameter.type for name, parameter in plain.binds.items()}
    return StatementText(
        compiled.statement,
        names,
        {name: compiled.parameters[name] for name in names if name not in asked},
        {str(column.key): _kind(column.type) for column in _columns(statement)},
        {name: kind for name in names if name in types and (kind := _binding(types[name]))},
    )


def conversions_of(statement: Statement) -> Sequence[Conversion | None]:
    """SQLAlchemy's own conversion of each column."""
    return [
        column.type.dialect_impl(_DIALECT).result_processor(_DIALECT, None) for column in _columns(statement)
    ]


def prepared_statements() -> Iterator[PreparedStatement[Statement]]:
    """Every statement of the catalog whose text is stored."""
    for module in walk_packages(catalog.__path__, f"{catalog.__name__}."):
        if ".migrations" in module.name:
            continue
        for found in vars(import_module(module.name)).values():
            if isinstance(found, PreparedStatement) and found.name.startswith(_short(module.name)):
                yield found
            elif isinstance(found, SizedStatement) and found.name.startswith(_short(module.name)):
                yield from map(found, found.stored)


def write_texts() -> str:
    """The content of `statement_texts.json`."""
    texts = {one.name: compile_statement(one.definition) for one in prepared_statements()}
    for one in prepared_statements():
        processors = conversions_of(one.definition)
        for (column, kind), processor in zip(texts[one.name].columns.items(), processors, strict=True):
            assert kind or not processor, f"{one}: CONVERSIONS has no kind for the column {column}"
    return statement_texts.encode(KNOWN[-1], dict(sorted(texts.items())))


def write_tables() -> str:
    """The content of `table_texts.json`."""
    kinds = {kind.__tablename__: kind for kind in vars(rows).values() if _is_table(kind)}
    return prepared_changes.encode(
        {name: _table(kinds[name], table) for name, table in sorted(Row.metadata.tables.items())}
    )


def _is_table(found: object) -> TypeGuard[type[Row]]:
    return isinstance(found, type) and issubclass(found, Row) and found is not Row


def _table(kind: type[Row], table: Table) -> TableText:
    key = table.autoincrement_column
    fields = {name: field for name, field in kind.model_fields.items() if not field.is_required()}
    return TableText(
        {column.name: _stored_kind(column) for column in table.columns},
        {name: field.default for name, field in fields.items() if key is None or name != key.key},
        key.key if key is not None else None,
    )


def _stored_kind(column: Column[Any]) -> str | None:
    """(`Any`: of any type.)"""
    kind = _binding(column.type)
    processor = column.type.dialect_impl(_DIALECT).bind_processor(_DIALECT)
    # Bytes are wrapped for drivers that need it; SQLite's does not.
    assert kind or not processor or column.type.python_type is bytes, f"BINDINGS has no kind for {column}"
    return kind


def _short(module: str) -> str:
    return f"{module.removeprefix(f'{catalog.__name__}.')}."


def _columns(statement: Statement) -> Iterable[ColumnElement[Any]]:
    return () if isinstance(statement, Update | Delete) else statement.selected_columns


def _binding(type: TypeEngine[Any]) -> str | None:
    """The kind of a value that is sent. (`Any`: of any value.)"""
    return "float" if isinstance(type, Float) else _kind(type)


def _kind(type: TypeEngine[Any]) -> str | None:
    """The kind of a value that is read. (`Any`: of any value.)"""
    if isinstance(type, Moment):
        return "moment"
    return "boolean" if isinstance(type, Boolean) else None
