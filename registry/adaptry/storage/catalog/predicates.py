"""Predicates: SQL conditions whose values are kept separate, so that each statement is built only once.

Building an SQL expression and compiling it takes longer than running it on SQLite. A predicate therefore has
a shape, from which the expression can be built, and the values of its parameters. Predicates of equal shapes
differ only in their values, so they share a statement: `select_where` builds and compiles it for the first of
them, and only binds values for the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, TypeAlias

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    and_,
    any_,
    bindparam,
    false,
    func,
    not_,
    or_,
    select,
    true,
    type_coerce,
)

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.prepared import PreparedReads, run_select

_CACHE_SIZE = 256  # statements
_COUNT = bindparam("count", type_=Integer())

Selection: TypeAlias = Select[Any]
"""A selection that lives as long as the process. (`Any`: typed by its columns.)"""
Value: TypeAlias = BindParameter[Any]
"""A parameter in an expression. (`Any`: of any type.)"""


@dataclass(frozen=True, slots=True)
class Shape:
    """An expression without its values: `build` is called with `arguments`, and then with a parameter for
    each value. Equal shapes give the same SQL.
    """

    build: Callable[..., ColumnElement[bool]]
    arguments: tuple[Any, ...]  # hashable; columns of tables are equal only to themselves
    values: int

    def expression(self, names: Iterator[str]) -> ColumnElement[bool]:
        return self.build(*self.arguments, *(bindparam(next(names)) for _ in range(self.values)))


@dataclass(frozen=True, slots=True)
class _BooleanPredicate:
    """Several shapes, joined by `and_` or `or_`, or a single shape, negated by `not_`."""

    join: Callable[..., ColumnElement[bool]]
    parts: tuple[Shape | _BooleanPredicate | _InSubquery, ...]

    def expression(self, names: Iterator[str]) -> ColumnElement[bool]:
        return self.join(*(part.expression(names) for part in self.parts))


@dataclass(frozen=True, slots=True)
class _InSubquery:
    """Whether a column has one of the keys that `selection` returns if it is restricted by `part`."""

    column: ColumnElement[int]
    selection: Selection
    part: Shape | _BooleanPredicate | _InSubquery

    def expression(self, names: Iterator[str]) -> ColumnElement[bool]:
        return self.column.in_(self.selection.where(self.part.expression(names)).correlate(None))


@dataclass(frozen=True, slots=True)
class Predicate:
    """A shape with its values, in the order of its parameters."""

    shape: Shape | _BooleanPredicate | _InSubquery
    values: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """Sorts rows by columns, all ascending or all descending; the parameter `count` limits their number."""

    columns: tuple[ColumnElement[Any], ...]  # of several types
    is_descending: bool


def predicate(
    build: Callable[..., ColumnElement[bool]], *arguments: object, values: Sequence[object] = ()
) -> Predicate:
    """The predicate of a function that builds its expression from hashable arguments and parameters."""
    return Predicate(Shape(build, arguments, len(values)), tuple(values))


TRUE, FALSE = predicate(true), predicate(false)


def all_hold(predicates: Sequence[Predicate]) -> Predicate:
    return _joined(and_, predicates) if predicates else TRUE


def any_holds(predicates: Sequence[Predicate]) -> Predicate:
    return _joined(or_, predicates) if predicates else FALSE


def negated(one: Predicate) -> Predicate:
    return _joined(not_, [one])


def _joined(join: Callable[..., ColumnElement[bool]], predicates: Sequence[Predicate]) -> Predicate:
    shape = _BooleanPredicate(join, tuple(one.shape for one in predicates))
    return Predicate(shape, tuple(value for one in predicates for value in one.values))


def in_subquery(column: ColumnElement[int], selection: Selection, where: Predicate) -> Predicate:
    """Whether `column` has one of the keys that `selection` (of one column) returns where `where` holds."""
    return Predicate(_InSubquery(column, selection, where.shape), where.values)


def one_of(tx: Reads, column: ColumnElement[Any], values: Iterable[int | str]) -> Predicate:
    """Whether a column has one of the values. All values are one parameter: as thousands of parameters, they
    would take longer to bind than to find. (`Any`: whole numbers or texts.)
    """
    if is_postgres(tx):
        return predicate(_in_array, column, values=[list(values)])
    return predicate(_in_json, column, values=[json.dumps(list(values))])


def _in_array(column: ColumnElement[Any], values: Value) -> ColumnElement[bool]:
    from sqlalchemy.dialects.postgresql import ARRAY  # 3 MB, which a server on SQLite does not need

    return column == any_(type_coerce(values, ARRAY(column.type)))


def _in_json(column: ColumnElement[Any], values: Value) -> ColumnElement[bool]:
    listed = func.json_each(values).table_valued("value")
    return column.in_(select(listed.c.value))


def is_postgres(tx: Reads) -> bool:
    if isinstance(tx, PreparedReads):
        return tx.is_postgres
    return tx.get_bind().dialect.name == "postgresql"


def select_where(
    tx: Reads,
    selection: Selection,
    predicates: Sequence[Predicate],
    parameters: Mapping[str, object] | None = None,
    order: Order | None = None,
) -> Sequence[Any]:
    """The rows of `selection` for which all predicates hold. `parameters` are those of the selection and the
    order. (`Any`: named tuples of the selection's columns.)
    """
    statement, values = _bound(selection, predicates, parameters, order)
    return run_select(tx, statement, values)


def keys_where(
    tx: Reads,
    selection: Selection,
    predicates: Sequence[Predicate],
    parameters: Mapping[str, object] | None = None,
    order: Order | None = None,
) -> list[int]:
    """Like `select_where`, for a selection of one column: returns its values."""
    statement, values = _bound(selection, predicates, parameters, order)
    return keys_of(tx, statement, values)


def keys_of(tx: Reads, statement: Selection, parameters: Mapping[str, object]) -> list[int]:
    """The keys that a statement selects. The database returns them in one row: SQLite's driver releases the
    interpreter lock for each row and then has to wait for it, and PostgreSQL's makes a tuple of each row.
    """
    if is_postgres(tx):
        (row,) = run_select(tx, _in_one_array(statement), parameters)
        return row[0] or []
    (row,) = run_select(tx, _in_one_row(statement), parameters)
    keys: list[int] = json.loads(row[0])
    return keys


@lru_cache(maxsize=_CACHE_SIZE)
def _in_one_row(statement: Selection) -> Selection:
    """Collects the keys into a JSON array. A subquery with a limit keeps its order."""
    (key,) = statement.subquery().c
    return select(func.json_group_array(key).label("keys"))


def _bound(
    selection: Selection,
    predicates: Sequence[Predicate],
    parameters: Mapping[str, object] | None,
    order: Order | None,
) -> tuple[Selection, dict[str, object]]:
    """The statement, and the values of its parameters."""
    values = (value for one in predicates for value in one.values)
    named = {f"value_{number}": value for number, value in enumerate(values)}
    statement = _statement(selection, tuple(one.shape for one in predicates), order)
    return statement, {**(parameters or {}), **named}


@lru_cache(maxsize=_CACHE_SIZE)
def _statement(
    selection: Selection, shapes: tuple[Shape | _BooleanPredicate | _InSubquery, ...], order: Order | None
) -> Selection:
    names = (f"value_{number}" for number in count())
    statement = selection.where(*(shape.expression(names) for shape in shapes))
    if order is None:
        return statement
    directed = (one.desc() if order.is_descending else one.asc() for one in order.columns)
    return statement.order_by(*directed).limit(_COUNT)


@lru_cache(maxsize=_CACHE_SIZE)
def _in_one_array(statement: Selection) -> Selection:
    """Like `_in_one_row`, for PostgreSQL; the result is None if there are no keys."""
    (key,) = statement.subquery().c
    return select(func.array_agg(key).label("keys"))
