"""Known damage: marks on stored files that are missing or changed, and on the revisions that need them.

`verify` sets the marks; storing the right bytes removes them. Marked files are not sent to readers, and a
push of the same bytes sends them again. Damage is not a lifecycle state of a version: people set states, with
a history, and a damaged file may belong to versions of several adapters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, bindparam, delete
from sqlalchemy import select as select_columns
from sqlmodel import col, func, select

from adaptry.core.digest import Digest
from adaptry.storage.catalog import inspections
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import DamagedFileRow, DamagedRevisionRow, VersionRow
from adaptry.storage.catalog.statement_texts import ALL_DAMAGED
from adaptry.storage.catalog.version_info import table_of

_DAMAGED = table_of(DamagedFileRow)
ALL = select_columns(_DAMAGED.c.digest, _DAMAGED.c.reason)
_REVISIONS = table_of(DamagedRevisionRow)
_NEEDING = select_columns(_REVISIONS.c.revision).where(_REVISIONS.c.file == bindparam("file")).limit(1)
_REASON = select_columns(_DAMAGED.c.reason).where(_DAMAGED.c.digest == bindparam("file"))


@dataclass(frozen=True, slots=True)
class DamageSummary:
    """The extent of known damage: stored files or manifests, and versions that need one of them."""

    files: int
    versions: int


def mark_damaged(
    tx: Transaction, file: Digest, reason: str, revisions: Iterable[Digest], at: datetime
) -> None:
    """Marks a file as damaged, for these revisions; a file that is already marked keeps its date."""
    row = tx.get(DamagedFileRow, file.hex)
    if row is None:
        tx.add(DamagedFileRow(digest=file.hex, reason=reason, found_at=at))
    elif row.reason != reason:
        row.reason = reason
    for revision in revisions:
        tx.merge(DamagedRevisionRow(revision=revision.hex, file=file.hex))
    tx.flush()


def clear_damage(tx: Transaction, file: Digest) -> None:
    """Removes the marks of a file that is intact again; it will be inspected again. No error if unmarked."""
    if run_select(tx, _REASON, {"file": file.hex}):
        tx.execute(delete(DamagedFileRow).where(col(DamagedFileRow.digest) == file.hex))
        inspections.forget(tx, file)
    if run_select(tx, _NEEDING, {"file": file.hex}):
        tx.execute(delete(DamagedRevisionRow).where(col(DamagedRevisionRow.file) == file.hex))


def damage_reason(tx: Reads, file: Digest) -> str | None:
    """The reason of a file's mark."""
    rows = run_select(tx, _REASON, {"file": file.hex})
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
def _reasons_of(count: int) -> Select[Any]:
    """(`Any`: typed by its columns.)"""
    files = [bindparam(f"file_{at}", type_=_DAMAGED.c.digest.type) for at in range(count)]
    return ALL.where(_DAMAGED.c.digest.in_(files))


def all_damaged(tx: Reads) -> Mapping[Digest, str]:
    """All marked files, with their reasons."""
    return {Digest(row.digest): row.reason for row in run_select(tx, ALL_DAMAGED, {})}


def summarise_damage(tx: Transaction) -> DamageSummary:
    files = tx.exec(select(func.count()).select_from(DamagedFileRow)).one()
    needing = select(DamagedRevisionRow.revision).distinct()
    versions = tx.exec(
        select(func.count()).select_from(VersionRow).where(col(VersionRow.digest).in_(needing))
    )
    return DamageSummary(files, versions.one())
