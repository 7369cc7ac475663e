"""Known damage: marks on stored files that are missing or changed, and on the revisions that need them.

`verify` marks what it finds; storing the right bytes takes the mark off. A marked file is not given to any
reader, and a push of the same bytes sends them again. Damage is no lifecycle state of a version: states are
what people decide, with a history, and a damaged file may belong to versions of several adapters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete
from sqlmodel import col, func, select

from adaptry.core.digest import Digest
from adaptry.storage.catalog import inspections
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import DamagedFileRow, DamagedRevisionRow, VersionRow


@dataclass(frozen=True, slots=True)
class DamageSummary:
    """How much is known to be damaged: stored files or manifests, and versions that need one of them."""

    files: int
    versions: int


def mark_damaged(
    tx: Transaction, file: Digest, reason: str, revisions: Iterable[Digest], at: datetime
) -> None:
    """Marks a file as damaged, for these revisions; one that was marked before keeps its date."""
    row = tx.get(DamagedFileRow, file.hex)
    if row is None:
        tx.add(DamagedFileRow(digest=file.hex, reason=reason, found_at=at))
    elif row.reason != reason:
        row.reason = reason
    for revision in revisions:
        tx.merge(DamagedRevisionRow(revision=revision.hex, file=file.hex))
    tx.flush()


def clear_damage(tx: Transaction, file: Digest) -> None:
    """The file is stored as it should be: what was marked is inspected anew. No error if unmarked."""
    marked = tx.execute(delete(DamagedFileRow).where(col(DamagedFileRow.digest) == file.hex))
    if marked.rowcount:  # type: ignore[attr-defined]  # a DML result has it
        inspections.forget(tx, file)
    tx.execute(delete(DamagedRevisionRow).where(col(DamagedRevisionRow.file) == file.hex))


def damage_reason(tx: Transaction, file: Digest) -> str | None:
    """What is wrong with a file that is marked."""
    row = tx.get(DamagedFileRow, file.hex)
    return row.reason if row else None


def all_damaged(tx: Transaction) -> Mapping[Digest, str]:
    """Everything that is marked, with its reason."""
    return {Digest(row.digest): row.reason for row in tx.exec(select(DamagedFileRow))}


def summarise_damage(tx: Transaction) -> DamageSummary:
    files = tx.exec(select(func.count()).select_from(DamagedFileRow)).one()
    needing = select(DamagedRevisionRow.revision).distinct()
    versions = tx.exec(
        select(func.count()).select_from(VersionRow).where(col(VersionRow.digest).in_(needing))
    )
    return DamageSummary(files, versions.one())
