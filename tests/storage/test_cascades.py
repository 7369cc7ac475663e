"""A deleted row's dependants are found by an index, however many rows their tables have."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Table, UniqueConstraint

from adaptry.storage.catalog.rows import Row


def test_each_column_that_a_deletion_cascades_to_has_an_index() -> None:
    """SQLite and PostgreSQL look them up by this column, once for each deleted row."""
    cascades = [
        (table, key)
        for table in Row.metadata.sorted_tables
        for key in table.foreign_keys
        if key.ondelete == "CASCADE"
    ]
    assert len(cascades) > 5
    assert [str(key.parent) for table, key in cascades if not has_index(table, key)] == []


def has_index(table: Table, key: ForeignKey) -> bool:
    complete = [index for index in table.indexes if not any("where" in one for one in index.dialect_kwargs)]
    unique = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    return any(
        next(iter(some.columns), None) is key.parent for some in (table.primary_key, *complete, *unique)
    )
