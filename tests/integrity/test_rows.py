"""Every value of every row is changed, one at a time: `verify` detects the change, or `undetectable` lists
the column with the reason.

The values are changed by SQL, which bypasses the checks that would refuse them.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adaptry.operations.repair import repair_registry
from adaptry.storage.catalog.rows import Row
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify

from .undetectable import RESTORED, UNKNOWABLE, UNUSED_ADAPTERS

MUST = {
    "versions": 19,
    "aliases": 6,
    "adapters": 9,
    "commits": 8,
    "marks": 7,
    "revisions": 2,
    "bases": 6,
    "version_details": 2,
    "metric_values": 20,
    "metric_summaries": 5,
    "inspections": 5,
    "promotions": 5,
    "epochs": 2,
    "base_names": 4,
    "namespaces": 2,
}
"""At least so many columns of these tables are changed and found: the corpus is not empty."""


@dataclass(frozen=True)
class Change:
    """One value of one row, and its new value."""

    table: str
    column: str
    row: int
    value: Any

    def __str__(self) -> str:
        return f"{self.table}.{self.column} row {self.row} -> {str(self.value)[:60]!r}"


def test_ordinary_operations_leave_no_damage(busy: LocalRegistry) -> None:
    assert verify(busy.catalog, busy.blobs) == ()


def test_a_registry_that_was_restored_and_used_again_has_no_damage(restored: LocalRegistry) -> None:
    assert verify(restored.catalog, restored.blobs) == ()
    assert repair_registry(restored, read_bytes=True).done == ()


QUICK = (
    "UPDATE adapters SET next_number = 9 WHERE name = 'acme/tone'",
    "UPDATE adapters SET visibility = 'public' WHERE name = 'acme/tone'",
    "UPDATE adapters SET tags = '[\"warm\"]' WHERE name = 'acme/tone'",
    "UPDATE adapters SET downloads = 7 WHERE name = 'acme/tone'",
    "UPDATE aliases SET version_id = 1 WHERE alias = 'stage'",
    "UPDATE aliases SET generation = generation + 1 WHERE alias = 'prod'",
    "UPDATE versions SET number = 7 WHERE number = 3",
    "UPDATE versions SET state = 'active' WHERE state = 'deprecated'",
    "UPDATE versions SET weights = replace(weights, 'a', 'b') WHERE number = 2",
    "UPDATE versions SET base_id = replace(base_id, 'a', 'b') WHERE number = 2",
    "UPDATE versions SET base_status = 'declared' WHERE number = 2",
    "UPDATE versions SET size = size + 1 WHERE number = 2",
    "UPDATE version_details SET spec = zeroblob(20) WHERE version_id = 2",
    "UPDATE commits SET parent_id = 1 WHERE title = 'Say how'",
    "UPDATE commits SET carries = 1 WHERE title = 'Say how'",
    "UPDATE marks SET commit_id = 1 WHERE name = 'trial'",
    "UPDATE metric_values SET value = value + 1",
    "UPDATE metric_values SET stderr = stderr / 2 WHERE stderr IS NOT NULL",
    "UPDATE metric_values SET withdrawn_reason = 'another' WHERE withdrawn_at IS NOT NULL",
    "UPDATE promotions SET record = replace(record, 'not_met', 'met')",
    "UPDATE promotions SET generation = generation + 1",
    "DELETE FROM promotions",
    "UPDATE policies SET text = replace(text, 'state', 'stage')",
    "UPDATE policies SET text = replace(text, ')', ') ')",
    "UPDATE policies SET text = NULL",
    "UPDATE policies SET namespace = 'acme'",
    "UPDATE metric_summaries SET lowest = lowest - 1",
    "UPDATE files SET size = size + 1",
    "UPDATE base_names SET name = 'org/tinu'",
    "UPDATE base_files SET size = size + 1 WHERE path = 'config.json'",
    "UPDATE bases SET architecture = replace(architecture, 'a', 'b')",
    "UPDATE events SET detail = replace(detail, 'sha256:', 'sha256:0') WHERE kind = 'alias.moved'",
    "UPDATE events SET number = number + 1 WHERE kind = 'version.pushed'",
    "UPDATE events SET number = 1 WHERE kind = 'rollout.started'",
    "UPDATE events SET kind = 'alias.mowed' WHERE kind = 'alias.moved'",
    "DELETE FROM events WHERE seq = 5",
    "DELETE FROM postings WHERE version_id = 2",
    "DELETE FROM versions WHERE number = 2",
    "UPDATE rollouts SET stage = 'done'",
    "UPDATE jobs SET task = '{\"read_bytes\": 7}' WHERE kind = 'verify'",
    "UPDATE tokens SET permissions = '[\"admim\"]'",
    "UPDATE tokens SET resources = '[\"a b\"]'",
    "UPDATE grants SET permission = 'admim'",
    "UPDATE grants SET conditions = '[\"alias~prod\"]'",
    "UPDATE principals SET kind = 'usex'",
    "UPDATE jobs SET rights = '{}'",
    "UPDATE namespaces SET name = 'acne' WHERE name = 'acme'",
    "UPDATE namespaces SET folded = 'acne' WHERE name = 'acme'",
    "UPDATE adapters SET folded = NULL WHERE name = 'acme/tone'",
    "UPDATE adapters SET folded = name WHERE deleted_at IS NOT NULL AND name = 'acme/gone'",
    "UPDATE aliases SET folded = 'prov' WHERE alias = 'prod'",
    "UPDATE aliases SET folded = 'brief' WHERE alias = 'brief'",
    "UPDATE marks SET folded = NULL WHERE name = 'main'",
    "UPDATE base_names SET folded = NULL",
    "UPDATE base_names SET namespace = 'orb'",
    "UPDATE bases SET visibility = 'public'",
    "UPDATE inspections SET nan = nan + 1",
    "UPDATE inspections SET tensors = tensors + 1",
    "UPDATE inspections SET norm = norm * 2",
    "UPDATE inspections SET statistics = zeroblob(9)",
    "UPDATE epochs SET floor = 7",
    "UPDATE epochs SET number = 2",
    "UPDATE epochs SET secret = 'none'",
)
"""Damage as it was tried from outside, and more."""

AFTER_A_RESTORE = (
    "UPDATE aliases SET generation = generation - 2 WHERE alias = 'prod'",
    "UPDATE aliases SET generation = 1 WHERE alias = 'fresh'",
    "UPDATE versions SET state_generation = 1 WHERE state_generation > 0",
    "UPDATE rollouts SET generation = 3",
    "UPDATE rollouts SET alias_generation = 2",
    "UPDATE epochs SET floor = floor + 1 WHERE number = 2",
    "UPDATE epochs SET floor = 0 WHERE number = 2",
    "UPDATE epochs SET id = '00000000000000ff' WHERE number = 2",
    "UPDATE epochs SET secret = printf('%064d', 1) WHERE number = 2",
    "UPDATE epochs SET began_at = '2026-01-01 00:00:00.000000' WHERE number = 2",
    "DELETE FROM epochs WHERE number = 2",
    "DELETE FROM events WHERE kind = 'registry.restored'",
    "DELETE FROM events WHERE kind = 'recall.remembered'",
    "DELETE FROM recall_claims WHERE source LIKE 'worker %'",
    "UPDATE recall_claims SET state = 'yanked' WHERE source LIKE 'worker %'",
    "UPDATE recall_claims SET state = 'revived'",
    "UPDATE recall_claims SET source = 'worker gpu-1' WHERE source NOT LIKE 'worker %'",
    "UPDATE adapters SET next_number = 1 WHERE name = 'acme/tone'",
)


def test_damage_of_single_values_is_found(busy: LocalRegistry, folder: Path) -> None:
    check_that_each_is_found(busy, folder, QUICK)


def test_damage_to_rows_of_a_restore_is_found(restored: LocalRegistry, folder: Path) -> None:
    check_that_each_is_found(restored, folder, AFTER_A_RESTORE)


def check_that_each_is_found(busy: LocalRegistry, folder: Path, statements: tuple[str, ...]) -> None:
    missed = []
    with closing(sqlite3.connect(folder / "catalog.sqlite", isolation_level=None)) as database:
        before = "\n".join(database.iterdump())
        for statement in statements:
            database.execute("PRAGMA foreign_keys=OFF")
            database.execute("BEGIN")
            changed = database.execute(statement).rowcount
            database.execute("COMMIT")
            if not changed or not verify(busy.catalog, busy.blobs, read_bytes=False, note=False):
                missed.append(statement)
            put_back(database, before)
    assert missed == []
    assert verify(busy.catalog, busy.blobs, read_bytes=False) == ()


def put_back(database: sqlite3.Connection, dump: str) -> None:
    """Restores all rows, without changing the tables themselves."""
    database.execute("BEGIN")
    for table in Row.metadata.sorted_tables:
        database.execute(f'DELETE FROM "{table.name}"')
    for line in dump.split(";\n"):
        if (
            line.lstrip().startswith("INSERT INTO")
            and "alembic_version" not in line
            and "sqlite_sequence" not in line
        ):
            database.execute(line)
    database.execute("COMMIT")


@pytest.mark.heavy
@pytest.mark.parametrize("corpus", ["busy", "restored"])
def test_a_changed_value_of_two_rows_of_each_table_is_found(
    corpus: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    """The first and last row, without columns listed in `undetectable`."""
    registry: LocalRegistry = request.getfixturevalue(corpus)
    check_that_changes_are_found(registry, folder, _unknowable(corpus), rows_of_table=2)


@pytest.mark.heavy
@pytest.mark.parametrize("corpus", ["busy", "restored"])
def test_a_changed_value_of_any_row_is_found_or_listed_as_undetectable(
    corpus: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    registry: LocalRegistry = request.getfixturevalue(corpus)
    check_that_changes_are_found(registry, folder, _unknowable(corpus), rows_of_table=None)


def _unknowable(corpus: str) -> dict[str, str]:
    return UNKNOWABLE | (RESTORED if corpus == "restored" else {})


def check_that_changes_are_found(
    registry: LocalRegistry, folder: Path, unknowable: dict[str, str], *, rows_of_table: int | None
) -> None:
    """If `rows_of_table` is None, all rows are changed, including values whose change cannot be detected:
    `verify` must not crash.
    """
    missed, found = [], dict.fromkeys(MUST, 0)
    with closing(sqlite3.connect(folder / "catalog.sqlite", isolation_level=None)) as database:
        database.execute("PRAGMA foreign_keys=OFF")
        database.execute("PRAGMA ignore_check_constraints=ON")
        seen: set[str] = set()
        unused = {row for (row,) in database.execute(UNUSED_ADAPTERS)}
        for change in changes(database, rows_of_table):
            column = f"{change.table}.{change.column}"
            is_unknowable = column in unknowable or f"{change.table}.*" in unknowable
            is_unknowable |= column == "adapters.id" and change.row in unused
            if is_unknowable and rows_of_table is not None:
                continue
            if not apply(database, change):
                continue
            is_found = bool(verify(registry.catalog, registry.blobs, read_bytes=False, note=False))
            restore(database, change)
            if is_found and column not in seen and change.table in found:
                seen.add(column)
                found[change.table] += 1
            if not is_found and not is_unknowable:
                missed.append(str(change))
    assert missed == []
    assert {table: count for table, count in found.items() if count < MUST[table]} == {}
    assert verify(registry.catalog, registry.blobs, read_bytes=False) == ()


_BEFORE: dict[str, Any] = {}


def changes(database: sqlite3.Connection, rows_of_table: int | None) -> Iterator[Change]:
    """For every column, changes of the value in every row (or in this many rows, from the first to the last),
    of each kind that suits its type.
    """
    for table in Row.metadata.sorted_tables:
        if table.name == "postings":  # it has no row numbers
            continue
        for column in table.columns:
            rows = database.execute(
                f'SELECT rowid, "{column.name}" FROM "{table.name}"'
                f' WHERE "{column.name}" IS NOT NULL ORDER BY rowid'
            ).fetchall()
            if rows_of_table is not None:
                last = len(rows) - 1
                chosen = {last * place // (rows_of_table - 1) for place in range(rows_of_table)}
                rows = [rows[place] for place in sorted(chosen)] if rows else []
            for row, value in rows:
                for other in others(value):
                    yield Change(table.name, column.name, row, other)


def others(value: Any) -> Iterator[Any]:
    """Possible new values: the next number, one letter or digit changed, one bit of the bytes changed."""
    match value:
        case int():
            yield value + 1
        case float():
            yield value * 1.5 + 1
        case bytes():
            middle = len(value) // 2
            yield value[:middle] + bytes([value[middle] ^ 4]) + value[middle + 1 :] if value else b"x"
        case str():
            yield from changed_texts(value)


def changed_texts(text: str) -> Iterator[str]:
    if re.fullmatch(r"\d{4}-\d\d-\d\d .*", text):
        yield text[:8] + ("11" if text[8:10] != "11" else "12") + text[10:]
        return
    places = [at for at, char in enumerate(text) if char.isalnum()]
    for at in {places[0], places[-1]} if places else ():
        digit = text[at]
        yield text[:at] + ("1" if digit != "1" else "2") + text[at + 1 :]


def apply(database: sqlite3.Connection, change: Change) -> bool:
    """Makes the change; returns whether the database accepted it, since a key may be taken."""
    (before,) = database.execute(
        f'SELECT "{change.column}" FROM "{change.table}" WHERE rowid = ?', (change.row,)
    ).fetchone()
    _BEFORE["value"], _BEFORE["rowid"] = before, change.row
    try:
        database.execute(
            f'UPDATE "{change.table}" SET "{change.column}" = ? WHERE rowid = ?', (change.value, change.row)
        )
    except sqlite3.IntegrityError:
        return False
    if database.execute(f'SELECT 1 FROM "{change.table}" WHERE rowid = ?', (change.row,)).fetchone() is None:
        _BEFORE["rowid"] = change.value  # the column is the row's own number
    return True


def restore(database: sqlite3.Connection, change: Change) -> None:
    database.execute(
        f'UPDATE "{change.table}" SET "{change.column}" = ? WHERE rowid = ?',
        (_BEFORE["value"], _BEFORE["rowid"]),
    )


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
