"""The prepared statements about adapters."""

from __future__ import annotations

from functools import cache
from typing import Any

from adaptry.core.lifecycle import LATEST
from adaptry.storage.catalog.lazy_modules import orm, sa, tables
from adaptry.storage.catalog.statement_texts import Selection, sized_statement, statement
from adaptry.storage.catalog.version_info import key_parameters


@statement
def of_name() -> Selection:
    return sa.select(tables.adapters.c.id, tables.adapters.c.visibility).where(
        tables.adapters.c.name == sa.bindparam("name"), tables.adapters.c.deleted_at.is_(None)
    )


@cache
def of_key() -> Any:
    return tables.adapters.c.id == sa.bindparam("key")


@statement
def next_number() -> Selection:
    return sa.select(tables.adapters.c.next_number).where(of_key())


@statement
def described() -> Selection:
    return sa.select(
        tables.adapters.c.name,
        tables.adapters.c.namespace,
        tables.adapters.c.description,
        tables.adapters.c.tags,
        tables.adapters.c.visibility,
    ).where(of_key())


@statement
def count_on() -> sa.Update:
    return (
        tables.adapters.update()
        .where(tables.adapters.c.id == sa.bindparam("of_key"))
        .values(
            next_number=sa.bindparam("next_number"),
            updated_at=sa.bindparam("updated_at"),
            version_count=tables.adapters.c.version_count + 1,
        )
    )


@statement
def key_of_name() -> Selection:
    """Selects the row of an adapter by name, including deleted and renamed adapters."""
    return sa.select(tables.adapters.c.id, tables.adapters.c.version_count).where(
        tables.adapters.c.name == sa.bindparam("of_name")
    )


@statement
def create_again() -> sa.Update:
    values = ("created_at", "updated_at", "deleted_at", "moved_to", "description", "tags", "visibility")
    return (
        tables.adapters.update()
        .where(tables.adapters.c.name == sa.bindparam("of_name"))
        .values({name: sa.bindparam(name) for name in ("namespace", *values, "downloads", "folded")})
    )


@statement
def more_downloads() -> sa.Update:
    more = tables.adapters.c.downloads + sa.bindparam("count")
    return tables.adapters.update().where(of_key()).values(downloads=more)


@cache
def _latest() -> Any:
    return (
        sa.select(tables.versions.c.number)
        .where(tables.versions.c.adapter_id == tables.adapters.c.id, tables.versions.c.state.in_(LATEST))
        .order_by(tables.versions.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )


def _shown() -> Selection:
    return sa.select(*tables.adapters.c, _latest().label("latest"))


@statement
def shown_one() -> Selection:
    return _shown().where(of_key())


@statement
def shown_by_name() -> Selection:
    return (
        _shown()
        .where(
            orm.EXISTS,
            tables.adapters.c.name > sa.bindparam("after"),
            tables.adapters.c.name < sa.bindparam("beyond"),
        )
        .order_by(tables.adapters.c.name)
        .limit(sa.bindparam("count", type_=tables.adapters.c.id.type))
    )


@sized_statement()
def shown_many(size: int) -> Selection:
    return _shown().where(tables.adapters.c.id.in_(key_parameters(size)))
