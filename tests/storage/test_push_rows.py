"""A push writes the same rows with stored SQL on SQLite's driver as with SQLAlchemy, and as on PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlmodel import Session

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.errors import AdaptryError
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit, PushOptions
from adaptry.storage.catalog import prepared, prepared_changes
from adaptry.storage.catalog.prepared import Query, definition_of
from adaptry.storage.catalog.prepared_changes import Changes
from adaptry.storage.catalog.rows import Row
from adaptry.storage.connect import open_in_memory, open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora

RANDOM = {"epochs"}  # tables whose rows have random ids
STEPS = 25


class SqlalchemyDriver:
    """Runs the definitions of prepared statements by SQLAlchemy."""

    def __init__(self, tx: Session) -> None:
        tx.flush()
        self._connection = tx.connection()

    def select(self, statement: Query, parameters: Mapping[str, object]) -> Sequence[Any]:
        return self._connection.execute(definition_of(statement), parameters).all()

    def change(self, statement: Changes, parameters: Mapping[str, object]) -> int:
        return self._connection.execute(definition_of(statement), parameters).rowcount

    count_changed = change

    def insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        self._connection.execute(Row.metadata.tables[table].insert(), rows)

    def insert_keyed(self, table: str, row: Mapping[str, object]) -> int:
        definition = Row.metadata.tables[table]
        made = self._connection.execute(definition.insert().values(row)).inserted_primary_key
        return int(made[0]) if made and isinstance(made[0], int) else 0


@pytest.fixture
def adapters(tmp_path: Path) -> list[Adapter]:
    return [
        open_dir(tiny_lora(tmp_path / f"lora-{number}", seed=number, base_name=f"org/base-{number % 2}"))
        for number in range(4)
    ]


@contextmanager
def ticking(registry: LocalRegistry) -> Iterator[LocalRegistry]:
    """A registry whose clock shows a different time at each read, sometimes with microseconds."""
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def tick() -> datetime:
        nonlocal now
        now += timedelta(minutes=1, microseconds=now.minute % 3)
        return now

    with registry:
        registry.context.clock = tick
        yield registry


def take_steps(registry: LocalRegistry, adapters: list[Adapter], seed: int) -> list[str]:
    """Pushes, edits and deletes; returns the outcome of each step. An alias that differs from another only in
    case is refused after the version's rows were written.
    """
    chosen, results = random.Random(seed), []
    for _ in range(STEPS):
        name = chosen.choice(["acme/one", "acme/two", "beta/Three", "Acme/refused"])
        adapter, is_pushed = chosen.choice(adapters), chosen.random() < 0.8
        options = PushOptions(
            metrics={"loss": chosen.choice([1, 0.5, 2.25])} if chosen.random() < 0.5 else {},
            alias=chosen.choice(["prod", "next", "Next", None, None]),
            number=chosen.choice([None, None, 7]),
        )
        try:
            if is_pushed:
                results.append(push(registry, adapter, name, options=options).version.label)
            else:
                results.append(change(registry, name))
        except AdaptryError as error:
            results.append(error.message)
    return results


def change(registry: LocalRegistry, name: str) -> str:
    version = registry.version(name)
    registry.adapters.edit(version.name, AdapterEdit(description="A tone.", tags=("x",)))
    if version.number > 2:
        for alias in version.aliases:
            registry.aliases.remove(version.name, alias, 0)
        registry.adapters.delete(version.name)
    return "changed"


def rows_of(registry: LocalRegistry) -> Mapping[str, list[str]]:
    with registry.catalog.read() as tx:
        return {
            name: sorted(map(repr, tx.execute(select(table)).all()))
            for name, table in Row.metadata.tables.items()
            if name not in RANDOM
        }


@pytest.mark.parametrize("seed", range(3))
def test_pushes_write_the_rows_that_sqlalchemy_writes(
    tmp_path: Path, adapters: list[Adapter], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ticking(open_local(tmp_path / "data")) as registry:
        results, rows = take_steps(registry, adapters, seed), rows_of(registry)
    for module in (prepared, prepared_changes):
        monkeypatch.setattr(module, "driver_of", SqlalchemyDriver)
    with ticking(open_in_memory()) as registry:
        assert take_steps(registry, adapters, seed) == results
        assert rows_of(registry) == rows
    assert "changed" in results
    assert any("differs only in case" in result for result in results)
