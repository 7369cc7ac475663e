"""Conditions on a column by a list of keys."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Integer, any_, literal
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import col

from adaptry.storage.catalog.database import Transaction


def one_of(tx: Transaction, column: int | None, keys: Sequence[int]) -> ColumnElement[bool]:
    """Whether an integer column has one of the keys. On PostgreSQL they are sent as one array: as single
    parameters, thousands of them take longer to write than to find.
    """
    compared = col(column)
    if tx.get_bind().dialect.name != "postgresql":
        return compared.in_(keys)
    return compared == any_(literal(list(keys), ARRAY(Integer)))
