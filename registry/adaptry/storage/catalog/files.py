"""Ownership of bytes: files by owner, upload sessions, and the weights digests of files.

An owner is an adapter (by its name, which may not exist yet) or a base (by its id).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, delete, func, update
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.core.quotas import QuotaSubject
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog import pending_deletes, stored_use
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import insert_new
from adaptry.storage.catalog.rows import FileRow, UploadRow, WeightsRow
from adaptry.storage.catalog.version_info import Columns, table_of

BASES = stored_use.BASES
"""The tenant of all bases: a reserved name, so that no namespace can use up their share."""
_MOST_ASKED = 500
"""Maximum number of names in one statement."""
_FILES, _UPLOADS, _WEIGHTS = table_of(FileRow), table_of(UploadRow), table_of(WeightsRow)
_FILE = select_columns(_FILES.c.size, _FILES.c.unneeded_since, _FILES.c.stored_by).where(
    _FILES.c.owner == bindparam("owner"), _FILES.c.digest == bindparam("digest")
)
_OF_SIZE = (
    select_columns(_FILES.c.digest)
    .where(_FILES.c.owner == bindparam("owner"), _FILES.c.size == bindparam("size"))
    .limit(1)
)
_SESSION = select_columns(_UPLOADS).where(_UPLOADS.c.id == bindparam("id"))
_UNFINISHED = (
    select_columns(_UPLOADS)
    .where(
        _UPLOADS.c.owner == bindparam("owner"),
        _UPLOADS.c.digest == bindparam("digest"),
        _UPLOADS.c.size == bindparam("size"),
        _UPLOADS.c.is_finished.is_(False),
    )
    .order_by(_UPLOADS.c.touched_at.desc())
)
_UNFINISHED_OF_SIZE = (
    select_columns(_UPLOADS.c.id)
    .where(
        _UPLOADS.c.owner == bindparam("owner"),
        _UPLOADS.c.size == bindparam("size"),
        _UPLOADS.c.is_finished.is_(False),
    )
    .limit(1)
)
_RESERVED = select_columns(func.max(_UPLOADS.c.size).label("size")).where(
    _UPLOADS.c.owner == bindparam("owner"),
    _UPLOADS.c.digest == bindparam("digest"),
    _UPLOADS.c.is_finished.is_(False),
)
_WEIGHTS_DIGEST = select_columns(_WEIGHTS.c.weights_digest).where(_WEIGHTS.c.file_digest == bindparam("file"))


@dataclass(frozen=True, slots=True)
class UploadSessionRecord:
    """An upload session: the expected bytes and their owner."""

    id: str
    owner: AdapterName | Digest
    digest: Digest
    size: int
    created_by: str
    touched_at: datetime
    is_finished: bool


def sizes(tx: Reads, owner: AdapterName | Digest, digests: Iterable[Digest]) -> dict[Digest, int]:
    """The files among these that the owner has, with their sizes."""
    found = {digest: _file(tx, owner, digest) for digest in digests}
    return {digest: row.size for digest, row in found.items() if row is not None}


def has_size(tx: Reads, owner: AdapterName, size: int) -> bool:
    """Whether the adapter has a file of that size."""
    return bool(run_select(tx, _OF_SIZE, {"owner": str(owner), "size": size}))


def stored_bytes(tx: Transaction, owners: Iterable[AdapterName]) -> dict[AdapterName, int]:
    """The total size of each adapter's files."""
    names = {str(owner): owner for owner in owners}
    asked, found = list(names), dict[AdapterName, int]()
    for start in range(0, len(asked), _MOST_ASKED):
        some = asked[start : start + _MOST_ASKED]
        query = select(FileRow.owner, func.sum(col(FileRow.size))).where(col(FileRow.owner).in_(some))
        found |= {names[owner]: int(size) for owner, size in tx.exec(query.group_by(col(FileRow.owner)))}
    return found


def add_owned(tx: Transaction, owner: AdapterName | Digest, digest: Digest, size: int, by: str) -> None:
    """Makes the owner an owner of these bytes, so that sweeps keep them; the first sender pays for them."""
    found = _file(tx, owner, digest)
    if found is None:
        insert_new(tx, FileRow, {"owner": str(owner), "digest": digest.hex, "size": size, "stored_by": by})
        stored_use.add_file(tx, str(owner), size, by)
    elif found.size != size or found.unneeded_since is not None:
        payer = found.stored_by
        tx.merge(
            FileRow(owner=str(owner), digest=digest.hex, size=size, unneeded_since=None, stored_by=payer)
        )
        stored_use.add_file(tx, str(owner), size - found.size, payer)
    pending_deletes.unmark_for_delete(tx, digest)


def is_owned(tx: Transaction, digest: Digest) -> bool:
    """Whether any owner has these bytes."""
    return tx.exec(select(FileRow.owner).where(FileRow.digest == digest.hex).limit(1)).first() is not None


def is_unneeded(tx: Reads, owner: AdapterName | Digest, digest: Digest) -> bool:
    """Whether a sweep is about to take the file from its owner."""
    row = _file(tx, owner, digest)
    return row is not None and row.unneeded_since is not None


def clear_unneeded(
    tx: Transaction, owner: AdapterName | Digest, digests: Iterable[Digest]
) -> dict[Digest, int]:
    """Removes the marks of files that the owner needs, so that no running sweep deletes them. Returns the
    files among them that it has, with their sizes.
    """
    found = {digest: row for digest in digests if (row := _file(tx, owner, digest)) is not None}
    marked = [digest.hex for digest, row in found.items() if row.unneeded_since is not None]
    if marked:
        tx.execute(
            update(FileRow)
            .where(col(FileRow.owner) == str(owner), col(FileRow.digest).in_(marked))
            .values(unneeded_since=None)
        )
    return {digest: row.size for digest, row in found.items()}


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


def find_session(tx: Reads, id: str) -> UploadSessionRecord | None:
    rows = run_select(tx, _SESSION, {"id": id})
    return _record(rows[0]) if rows else None


def unfinished_sessions(
    tx: Reads, owner: AdapterName | Digest, digest: Digest, size: int
) -> list[UploadSessionRecord]:
    """The owner's open sessions for the same bytes, most recently used first."""
    asked = {"owner": str(owner), "digest": digest.hex, "size": size}
    return [_record(row) for row in run_select(tx, _UNFINISHED, asked)]


def has_unfinished(tx: Reads, owner: AdapterName, size: int) -> bool:
    """Whether the owner has an open session for a file of that size."""
    return bool(run_select(tx, _UNFINISHED_OF_SIZE, {"owner": str(owner), "size": size}))


def set_expected(tx: Transaction, id: str, digest: Digest) -> None:
    """Sets the digest that a session's bytes must have."""
    tx.execute(update(UploadRow).where(col(UploadRow.id) == id).values(digest=digest.hex))


def reserved_bytes(tx: Reads, owner: AdapterName | Digest, digest: Digest) -> int:
    """The bytes that open sessions for these bytes have reserved."""
    (row,) = run_select(tx, _RESERVED, {"owner": str(owner), "digest": digest.hex})
    return int(row.size or 0)


def sessions_idle_since(
    tx: Transaction, subject: QuotaSubject, before: datetime
) -> list[UploadSessionRecord]:
    """The open sessions in a namespace, or of a principal, that were not used since `before`, the longest
    idle first.
    """
    query = select(UploadRow).where(
        (col(UploadRow.tenant) if subject.scope == "namespace" else col(UploadRow.created_by))
        == subject.name,
        col(UploadRow.is_finished).is_(False),
        col(UploadRow.touched_at) < before,
    )
    return [_record(row) for row in tx.exec(query.order_by(col(UploadRow.touched_at)))]


def open_tenants(tx: Transaction) -> list[str]:
    """The tenants with open sessions: namespaces, and `BASES`."""
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
    """Closes the sessions among these that are still unused since `before`."""
    for id in ids:
        tx.execute(delete(UploadRow).where(col(UploadRow.id) == id, col(UploadRow.touched_at) < before))


def idle_sessions(tx: Transaction, before: datetime) -> list[str]:
    """The ids of sessions unused since that time."""
    return list(tx.exec(select(UploadRow.id).where(col(UploadRow.touched_at) < before)))


def find_weights_digest(tx: Reads, file: Digest) -> Digest | None:
    """The weights digest of a safetensors file, if it was derived before."""
    rows = run_select(tx, _WEIGHTS_DIGEST, {"file": file.hex})
    return Digest(rows[0].weights_digest) if rows else None


def store_weights_digest(tx: Transaction, file: Digest, weights: Digest) -> None:
    known = find_weights_digest(tx, file)
    if known is None:
        insert_new(tx, WeightsRow, {"file_digest": file.hex, "weights_digest": weights.hex})
    elif known != weights:
        tx.merge(WeightsRow(file_digest=file.hex, weights_digest=weights.hex))


def tenant_of(owner: AdapterName | Digest) -> str:
    """The tenant whose quota an owner counts against: its namespace, or all bases together."""
    return owner.namespace if isinstance(owner, AdapterName) else BASES


def _file(tx: Reads, owner: AdapterName | Digest, digest: Digest) -> Columns | None:
    rows = run_select(tx, _FILE, {"owner": str(owner), "digest": digest.hex})
    return rows[0] if rows else None


def _record(row: UploadRow | Columns) -> UploadSessionRecord:
    owner = Digest.parse(row.owner) if row.owner.startswith("sha256:") else AdapterName.parse(row.owner)
    return UploadSessionRecord(
        row.id, owner, Digest(row.digest), row.size, row.created_by, row.touched_at, row.is_finished
    )
