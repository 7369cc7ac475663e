"""Known damage: marks on stored files that are missing or changed, and on the revisions that need them.

`verify` sets the marks; storing the right bytes removes them. Marked files are not sent to readers, and a
push of the same bytes sends them again. Damage is not a lifecycle state of a version: people set states, with
a history, and a damaged file may belong to versions of several adapters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from functools import lru_cache

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog import inspections
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import ALL_DAMAGED, Selection, statement


@statement
def every() -> Selection:
    return sa.select(tables.damaged_files.c.digest, tables.damaged_files.c.reason)


@statement
def _needing() -> Selection:
    return (
        sa.select(tables.damaged_revisions.c.revision)
        .where(tables.damaged_revisions.c.file == sa.bindparam("file"))
        .limit(1)
    )


@statement
def _reason() -> Selection:
    return sa.select(tables.damaged_files.c.reason).where(
        tables.damaged_files.c.digest == sa.bindparam("file")
    )


@statement
def _is_marked() -> Selection:
    marks = (
        sa.exists().where(tables.damaged_files.c.digest == sa.bindparam("file")),
        sa.exists().where(tables.damaged_revisions.c.file == sa.bindparam("file")),
    )
    return sa.select(sa.or_(*marks).label("is_marked"))


@dataclass(frozen=True, slots=True)
class DamageSummary:
    """The extent of known damage: stored files or manifests, and versions that need one of them."""

    files: int
    versions: int


def mark_damaged(
    tx: Transaction, file: Digest, reason: str, revisions: Iterable[Digest], at: datetime
) -> None:
    """Marks a file as damaged, for these revisions; a file that is already marked keeps its date."""
    row = tx.get(orm.DamagedFileRow, file.hex)
    if row is None:
        tx.add(orm.DamagedFileRow(digest=file.hex, reason=reason, found_at=at))
    elif row.reason != reason:
        row.reason = reason
    for revision in revisions:
        tx.merge(orm.DamagedRevisionRow(revision=revision.hex, file=file.hex))
    tx.flush()


def clear_damage(tx: Transaction, file: Digest) -> None:
    """Removes the marks of a file that is intact again; it will be inspected again. No error if unmarked."""
    if not run_select(tx, _is_marked, {"file": file.hex})[0].is_marked:
        return
    if run_select(tx, _reason, {"file": file.hex}):
        tx.execute(sa.delete(orm.DamagedFileRow).where(sm.col(orm.DamagedFileRow.digest) == file.hex))
        inspections.delete(tx, file)
    if run_select(tx, _needing, {"file": file.hex}):
        tx.execute(sa.delete(orm.DamagedRevisionRow).where(sm.col(orm.DamagedRevisionRow.file) == file.hex))


def damage_reason(tx: Reads, file: Digest) -> str | None:
    """The reason of a file's mark."""
    rows = run_select(tx, _reason, {"file": file.hex})
    return rows[0].reason if rows else None


def damage_reasons(tx: Reads, files: Collection[Digest]) -> dict[Digest, str]:
    """The reasons of the marked files among these, in one statement."""
    if not files:
        return {}
    parameters = {f"file_{at}": file.hex for at, file in enumerate(files)}
    return {
        Digest(row.digest): row.reason for row in run_select(tx, _reasons_of(len(parameters)), parameters)
    }


@lru_cache(maxsize=128)
def _reasons_of(count: int) -> Selection:
    """(`Any`: typed by its columns.)"""
    files = [sa.bindparam(f"file_{at}", type_=tables.damaged_files.c.digest.type) for at in range(count)]
    return every.definition.where(tables.damaged_files.c.digest.in_(files))


def all_damaged(tx: Reads) -> Mapping[Digest, str]:
    """All files marked as damaged, with the reasons."""
    return {Digest(row.digest): row.reason for row in run_select(tx, ALL_DAMAGED, {})}


def summarise_damage(tx: Transaction) -> DamageSummary:
    files = tx.exec(sm.select(sm.func.count()).select_from(orm.DamagedFileRow)).one()
    needing = sm.select(orm.DamagedRevisionRow.revision).distinct()
    versions = tx.exec(
        sm.select(sm.func.count())
        .select_from(orm.VersionRow)
        .where(sm.col(orm.VersionRow.digest).in_(needing))
    )
    return DamageSummary(files, versions.one())
