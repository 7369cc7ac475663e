"""Every value of every row is changed, one at a time: `verify` finds it, or it is listed here with the reason
why nothing can.

The values are changed by SQL, past everything that would refuse them.
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

TRANSIENT = "kept for a day or less, and made anew by whoever needs it"
REPORTED = "what a worker or runner said of itself; it says it again within a minute"
ALONE = "chosen by people, kept once, compared with nothing"
WHEN = "a time or a person that nothing else records"

UNKNOWABLE: dict[str, str] = {
    "answers.*": TRANSIENT,
    "uploads.*": TRANSIENT,
    "leaving.*": "a sweep looks again, in the transaction in which it acts, before it believes them",
    "files.unneeded_since": "a sweep looks again before it believes the mark",
    "damaged_files.reason": "a sentence for people",
    "damaged_files.found_at": WHEN,
    "workers.*": REPORTED,
    "residents.*": REPORTED,
    "runners.*": REPORTED,
    "jobs.*": ALONE + ", but for its state and task; what a job does is looked at when it acts",
    "job_steps.*": "how far a job is; a step that is done again changes nothing",
    "job_lines.*": "a log for people",
    "job_schedules.*": ALONE,
    "tokens.*": ALONE + ": a token's limits and times are in no other place",
    "principals.*": ALONE,
    "principal_groups.*": ALONE,
    "group_members.*": ALONE,
    "grants.*": ALONE + ": what somebody is granted is in no other place",
    "accountable_owners.*": ALONE,
    "policies.*": ALONE + ", but for its alias and text",
    "approvals.*": ALONE + "; one that does not fit a version and a generation counts for nothing",
    "promotions.id": "a row's own number, of which only the order matters",
    "quotas.*": ALONE + ": what administrators set is in no other place",
    "invitations.*": TRANSIENT,
    "issuers.*": ALONE + ": whom administrators trust is in no other place",
    "publishers.*": ALONE + ": which jobs may push is in no other place",
    "used_id_tokens.*": TRANSIENT,
    "external_users.*": "what an identity provider said, which says it again at the next sign-in",
    "provider_groups.*": ALONE,
    "device_sign_ins.*": TRANSIENT,
    "refresh_tokens.*": TRANSIENT,
    "request_use.*": TRANSIENT,
    "posted_files.*": "what programs posted, kept once; its content is compared with its digest when it"
    " is read",
    "webhooks.*": ALONE,
    "webhook_deliveries.*": TRANSIENT,
    "stored_use.scope": "a count of zero says nothing of anybody",
    "stored_use.name": "a count of zero says nothing of anybody",
    "commits.message": "what people wrote, kept once where it is no version's",
    "rollouts.every": ALONE,
    "rollouts.step_at": "within a minute of its event",
    "rollouts.started_at": "within a minute of its event",
    "rollouts.steps": "the steps still to come are kept once; the present one is compared",
    "events.by": WHEN + " where the row it tells of has changed since",
    "events.at": WHEN + " where the row it tells of has changed since",
    "events.detail": "the words of earlier edits, and details for people, are kept once",
    "base_files.path": "compared with its record where the base was registered with --full",
    "files.owner": "bytes that nobody uses: a sweep takes them",
    "files.digest": "bytes that nobody uses: a sweep takes them",
    "adapters.downloads": (
        "of a deleted adapter it is counted anew when the name is used again; another's is compared"
    ),
    "bases.key": "a row's own number, of which only the order matters",
    "rollouts.id": "a row's own number, of which only the order matters",
    "weights.weights_digest": (
        "compared with the version's; of a file that no version has it is derived again when that is pushed"
    ),
    "adapters.next_number": (
        "one too high, of a name that another adapter had before; of others it is found (`QUICK`)"
    ),
    "epochs.id": "a random value that is kept once",
    "epochs.secret": "a random value that is kept once",
    "epochs.began_at": WHEN,
    "inspections.file_digest": (
        "computed again for the file that has none; one of no file is no use to anybody"
    ),
    "weights.file_digest": "derived again for the file that has none; one of no file is no use to anybody",
    "metric_values.id": "a row's own number, of which only the order matters",
    "audit_entries.*": "an entry that is not sealed yet is written down once; of others it is found",
    "audit_checkpoints.*": "`adaptry audit verify` looks at the signed checkpoints",
    "audit_state.*": "`adaptry audit verify` looks at the signed checkpoints",
    "audit_subtrees.*": "`adaptry audit verify` looks at the signed checkpoints",
    "terms.*": "a term that no version has is no use to any search",
}
"""By column (or `table.*`): why a changed value may not be found. Any of the values of such a column may; all
others must be found.
"""

RESTORED = {
    "recall_claims.at": WHEN + " where a worker knew of the recall",
    "recall_claims.name": "what the replaced catalog knew is nowhere else",
    "recall_claims.digest": "what the replaced catalog knew is nowhere else",
    "recall_claims.state": "what the replaced catalog knew is nowhere else",
}
"""And in a registry that was restored."""

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
"""At least so many columns of these tables are changed and found: the corpus is not empty. (Which rows are
changed is random.)
"""


@dataclass(frozen=True)
class Change:
    """One value of one row, and what it becomes."""

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
    "UPDATE policies SET namespace = 'acme'",
    "UPDATE metric_summaries SET lowest = lowest - 1",
    "UPDATE files SET size = size + 1",
    "UPDATE base_names SET name = 'org/tinu'",
    "UPDATE base_files SET size = size + 1 WHERE path = 'config.json'",
    "UPDATE bases SET architecture = replace(architecture, 'a', 'b')",
    "UPDATE events SET detail = replace(detail, 'sha256:', 'sha256:0') WHERE kind = 'alias.moved'",
    "UPDATE events SET number = number + 1 WHERE kind = 'version.pushed'",
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
    """All rows as they were, without touching the tables themselves."""
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
def test_a_changed_value_of_any_row_is_found_or_listed_as_undetectable(
    corpus: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    busy: LocalRegistry = request.getfixturevalue(corpus)
    unknowable = UNKNOWABLE | (RESTORED if corpus == "restored" else {})
    missed, found = [], dict.fromkeys(MUST, 0)
    with closing(sqlite3.connect(folder / "catalog.sqlite", isolation_level=None)) as database:
        database.execute("PRAGMA foreign_keys=OFF")
        database.execute("PRAGMA ignore_check_constraints=ON")
        seen: set[str] = set()
        for change in changes(database):
            if not apply(database, change):
                continue
            is_found = bool(verify(busy.catalog, busy.blobs, read_bytes=False, note=False))
            restore(database, change)
            column = f"{change.table}.{change.column}"
            if is_found and column not in seen and change.table in found:
                seen.add(column)
                found[change.table] += 1
            if not is_found and column not in unknowable and f"{change.table}.*" not in unknowable:
                missed.append(str(change))
    assert missed == []
    assert {table: count for table, count in found.items() if count < MUST[table]} == {}
    assert verify(busy.catalog, busy.blobs, read_bytes=False) == ()


_BEFORE: dict[str, Any] = {}


def changes(database: sqlite3.Connection) -> Iterator[Change]:
    """For every column, the value of three rows changed in the ways of its type."""
    for table in Row.metadata.sorted_tables:
        keys = "" if table.name == "postings" else "rowid, "
        if not keys:
            continue
        for column in table.columns:
            rows = database.execute(
                f'SELECT rowid, "{column.name}" FROM "{table.name}" ORDER BY random() LIMIT 3'
            ).fetchall()
            for row, value in rows:
                for other in others(value):
                    yield Change(table.name, column.name, row, other)


def others(value: Any) -> Iterator[Any]:
    """What a value may become: the next number, one letter or digit another, one bit of bytes another."""
    match value:
        case None:
            return
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
    """Whether the database took it: a key that is taken is no case."""
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
