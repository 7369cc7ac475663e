"""The full audit, in the order of its report: the database itself, single values, then contradictions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sqlmodel import col, select

from adaptry.storage.catalog import postgres, sqlite
from adaptry.storage.catalog.audit import (
    adapters,
    bases,
    column_values,
    epochs,
    events,
    folded_names,
    inspections,
    manifests,
    policies,
    sealed_entries,
    stored_use,
    weight_measurements,
)
from adaptry.storage.catalog.audit.problem import IntegrityProblem, guard_problems
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import AdapterRow


def audit(catalog: Catalog) -> Iterator[IntegrityProblem]:
    """Every problem in the catalog. Raises `Unavailable`."""
    yield from guard_problems("database", partial(_database, catalog))
    yield from guard_problems("catalog", partial(column_values.problems, catalog))
    yield from guard_problems("revisions", partial(manifests.problems, catalog))
    yield from guard_problems("events", partial(events.problems, catalog))
    yield from guard_problems("epochs", partial(epochs.problems, catalog))
    shared = adapters.AuditContext()
    yield from guard_problems("adapters", partial(adapters.cross_adapter_problems, catalog, shared))
    yield from guard_problems("names", partial(folded_names.problems, catalog))
    for key, name in _adapters(catalog):
        yield from guard_problems(name, partial(adapters.problems, catalog, key, shared))
    yield from guard_problems("bases", partial(bases.problems, catalog))
    yield from guard_problems("inspections", partial(inspections.problems, catalog))
    yield from guard_problems("weight measurements", partial(weight_measurements.problems, catalog))
    yield from guard_problems("policies", partial(policies.problems, catalog))
    yield from guard_problems("audit log", partial(sealed_entries.problems, catalog))
    yield from guard_problems("stored use", partial(stored_use.problems, catalog))


def _database(catalog: Catalog) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        connection = tx.connection()
        dialect = postgres if connection.dialect.name == "postgresql" else sqlite
        for text in dialect.find_problems(connection):
            yield IntegrityProblem("database", text, "database")


def _adapters(catalog: Catalog) -> Iterator[tuple[int, str]]:
    after = 0
    while True:
        with catalog.read() as tx:
            query = select(AdapterRow.id, AdapterRow.name).where(col(AdapterRow.id) > after)
            rows = tx.exec(query.order_by(col(AdapterRow.id)).limit(200)).all()
        if not rows:
            return
        for key, name in rows:
            assert key is not None
            yield key, str(name)
        after = rows[-1][0] or 0
