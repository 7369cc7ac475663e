"""Whose bytes are whose: files by owner, the sessions that bring them, and the weights digests of files.

An owner is an adapter (by its name, which may not exist yet) or a base (by its id).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, update
from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog import pending_deletes
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import FileRow, UploadRow, WeightsRow

BASES = "bases"
"""The tenant of all bases: a reserved name, so no namespace can use up their share."""
_MOST_ASKED = 500
"""Names in one statement."""


@dataclass(frozen=True, slots=True)
class UploadSessionRecord:
    """An upload session: which bytes are awaited, for whom."""

    id: str
    owner: AdapterName | Digest
    digest: Digest
    size: int
    created_by: str
    touched_at: datetime
    is_finished: bool


def sizes(tx: Transaction, owner: AdapterName | Digest, digests: Iterable[Digest]) -> dict[Digest, int]:
    """Those of the files that the owner has, with their sizes."""
    query = select(FileRow.digest, FileRow.size).where(
        FileRow.owner == str(owner), col(FileRow.digest).in_([digest.hex for digest in digests])
    )
    return {Digest(hexed): size for hexed, size in tx.exec(query)}


def stored_bytes(tx: Transaction, owners: Iterable[AdapterName]) -> dict[AdapterName, int]:
    """How many bytes each of the adapters has."""
    names = {str(owner): owner for owner in owners}
    asked, found = list(names), dict[AdapterName, int]()
    for start in range(0, len(asked), _MOST_ASKED):
        some = asked[start : start + _MOST_ASKED]
        query = select(FileRow.owner, func.sum(col(FileRow.size))).where(col(FileRow.owner).in_(some))
        found |= {names[owner]: int(size) for owner, size in tx.exec(query.group_by(col(FileRow.owner)))}
    return found


def add_owned(tx: Transaction, owner: AdapterName | Digest, digest: Digest, size: int) -> None:
    """From now on the owner has these bytes, and they stay."""
    tx.merge(FileRow(owner=str(owner), digest=digest.hex, size=size, unneeded_since=None))
    pending_deletes.unmark_for_delete(tx, digest)


def is_owned(tx: Transaction, digest: Digest) -> bool:
    """Whether any owner has these bytes."""
    return tx.exec(select(FileRow.owner).where(FileRow.digest == digest.hex).limit(1)).first() is not None


def is_unneeded(tx: Transaction, owner: AdapterName | Digest, digest: Digest) -> bool:
    """Whether a sweep is about to take the file from its owner."""
    row = tx.get(FileRow, (str(owner), digest.hex))
    return row is not None and row.unneeded_since is not None


def clear_unneeded(tx: Transaction, owner: AdapterName | Digest, digests: Iterable[Digest]) -> None:
    """Something of the owner's names these files, or is about to: no sweep that began before takes them."""
    tx.execute(
        update(FileRow)
        .where(
            col(FileRow.owner) == str(owner),
            col(FileRow.digest).in_([digest.hex for digest in digests]),
            col(FileRow.unneeded_since).is_not(None),
        )
        .values(unneeded_since=None)
    )


def open_session(
    tx: Transaction, id: str, owner: AdapterName | Digest, digest: Digest, size: int, at: datetime, by: str
) -> UploadSessionRecord:
    row = UploadRow(
        id=id,
        owner=str(owner),
        tenant=tenant_of(owner),
        digest=digest.hex,
        size=size,
        created_by=by,
        touched_at=at,
    )
    tx.add(row)
    return _record(row)


def find_session(tx: Transaction, id: str) -> UploadSessionRecord | None:
    row = tx.get(UploadRow, id)
    return _record(row) if row else None


def unfinished_sessions(
    tx: Transaction, owner: AdapterName | Digest, digest: Digest, size: int
) -> list[UploadSessionRecord]:
    """The owner's open sessions for the same bytes, the one last used first."""
    query = select(UploadRow).where(
        UploadRow.owner == str(owner),
        UploadRow.digest == digest.hex,
        UploadRow.size == size,
        col(UploadRow.is_finished).is_(False),
    )
    return [_record(row) for row in tx.exec(query.order_by(col(UploadRow.touched_at).desc()))]


def count_open_sessions(tx: Transaction, owner: AdapterName | Digest) -> int:
    """How many sessions the owner's tenant has open."""
    query = select(func.count()).where(
        UploadRow.tenant == tenant_of(owner), col(UploadRow.is_finished).is_(False)
    )
    return tx.exec(query).one()


def sessions_idle_since(
    tx: Transaction, owner: AdapterName | Digest, before: datetime
) -> list[UploadSessionRecord]:
    """The open sessions of the owner's tenant that nobody has used since `before`, the longest idle first."""
    query = select(UploadRow).where(
        UploadRow.tenant == tenant_of(owner),
        col(UploadRow.is_finished).is_(False),
        col(UploadRow.touched_at) < before,
    )
    return [_record(row) for row in tx.exec(query.order_by(col(UploadRow.touched_at)))]


def open_tenants(tx: Transaction) -> list[str]:
    """The tenants that have sessions open: namespaces, and `BASES`."""
    query = select(UploadRow.tenant).where(col(UploadRow.is_finished).is_(False)).distinct()
    return list(tx.exec(query.order_by(UploadRow.tenant)))


def open_page(tx: Transaction, tenants: Sequence[str], after: str, limit: int) -> list[UploadSessionRecord]:
    """The tenants' open sessions whose ids come after `after`, in the order of their ids."""
    query = select(UploadRow).where(
        col(UploadRow.tenant).in_(tenants),
        col(UploadRow.is_finished).is_(False),
        col(UploadRow.id) > after,
    )
    return [_record(row) for row in tx.exec(query.order_by(UploadRow.id).limit(limit))]


def touch(tx: Transaction, id: str, at: datetime) -> None:
    tx.execute(update(UploadRow).where(col(UploadRow.id) == id).values(touched_at=at))


def finish_session(tx: Transaction, id: str, at: datetime) -> None:
    tx.execute(update(UploadRow).where(col(UploadRow.id) == id).values(touched_at=at, is_finished=True))


def close_session(tx: Transaction, id: str) -> None:
    tx.execute(delete(UploadRow).where(col(UploadRow.id) == id))


def close_idle(tx: Transaction, ids: Iterable[str], before: datetime) -> None:
    """Closes those of the sessions that have still not been used since `before`."""
    for id in ids:
        tx.execute(delete(UploadRow).where(col(UploadRow.id) == id, col(UploadRow.touched_at) < before))


def idle_sessions(tx: Transaction, before: datetime) -> list[str]:
    """The ids of sessions not used since."""
    return list(tx.exec(select(UploadRow.id).where(col(UploadRow.touched_at) < before)))


def find_weights_digest(tx: Transaction, file: Digest) -> Digest | None:
    """The weights digest of a safetensors file, if it was derived before."""
    row = tx.get(WeightsRow, file.hex)
    return Digest(row.weights_digest) if row else None


def store_weights_digest(tx: Transaction, file: Digest, weights: Digest) -> None:
    tx.merge(WeightsRow(file_digest=file.hex, weights_digest=weights.hex))


def tenant_of(owner: AdapterName | Digest) -> str:
    """Whose quota an owner counts against: its namespace, or the bases as one."""
    return owner.namespace if isinstance(owner, AdapterName) else BASES


def _record(row: UploadRow) -> UploadSessionRecord:
    owner = Digest.parse(row.owner) if row.owner.startswith("sha256:") else AdapterName.parse(row.owner)
    return UploadSessionRecord(
        row.id, owner, Digest(row.digest), row.size, row.created_by, row.touched_at, row.is_finished
    )
