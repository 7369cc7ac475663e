"""Ownership of bytes: files by owner, upload sessions, and the weights digests of files.

An owner is an adapter (by its name, which may not exist yet) or a base (by its id).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.quotas import QuotaSubject
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog import pending_deletes, stored_use
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import change, count_changed, insert_new
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.version_info import Columns

BASES = stored_use.BASES
"""The tenant of all bases: a reserved name, so that no namespace can use up their share."""
_MAX_DIGESTS = 500
"""Maximum number of names in one statement."""
_MAX_SAME_CONTENT = 64
"""Maximum number of files of the same size that are compared with a new one."""


@statement
def _file_query() -> Selection:
    return sa.select(tables.files.c.size, tables.files.c.unneeded_since, tables.files.c.stored_by).where(
        tables.files.c.owner == sa.bindparam("owner"), tables.files.c.digest == sa.bindparam("digest")
    )


@statement
def _of_size() -> Selection:
    return (
        sa.select(tables.files.c.digest)
        .where(tables.files.c.owner == sa.bindparam("owner"), tables.files.c.size == sa.bindparam("size"))
        .limit(_MAX_SAME_CONTENT)
    )


@statement
def _session() -> Selection:
    return sa.select(tables.uploads).where(tables.uploads.c.id == sa.bindparam("id"))


@statement
def _unfinished() -> Selection:
    return (
        sa.select(tables.uploads)
        .where(
            tables.uploads.c.owner == sa.bindparam("owner"),
            tables.uploads.c.digest == sa.bindparam("digest"),
            tables.uploads.c.size == sa.bindparam("size"),
            tables.uploads.c.is_finished.is_(False),
        )
        .order_by(tables.uploads.c.touched_at.desc())
    )


@statement
def _reserved() -> Selection:
    return sa.select(sa.func.max(tables.uploads.c.size).label("size")).where(
        tables.uploads.c.owner == sa.bindparam("owner"),
        tables.uploads.c.digest == sa.bindparam("digest"),
        tables.uploads.c.is_finished.is_(False),
    )


@statement
def _weights_digest() -> Selection:
    return sa.select(tables.weights.c.weights_digest).where(
        tables.weights.c.file_digest == sa.bindparam("file")
    )


@statement
def _unfinished_of_size() -> Selection:
    return (
        sa.select(tables.uploads.c.id)
        .where(
            tables.uploads.c.owner == sa.bindparam("owner"),
            tables.uploads.c.size == sa.bindparam("size"),
            tables.uploads.c.is_finished.is_(False),
        )
        .limit(1)
    )


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
    """Those of the files that the owner has, with their sizes."""
    found = {digest: _file(tx, owner, digest) for digest in digests}
    return {digest: row.size for digest, row in found.items() if row is not None}


def of_size(tx: Reads, owner: AdapterName, size: int) -> list[Digest]:
    """A few of the adapter's files that have this size."""
    return [Digest(row.digest) for row in run_select(tx, _of_size, {"owner": str(owner), "size": size})]


def stored_bytes(tx: Transaction, owners: Iterable[AdapterName]) -> dict[AdapterName, int]:
    """The total size of each adapter's files."""
    names = {str(owner): owner for owner in owners}
    asked, found = list(names), dict[AdapterName, int]()
    for start in range(0, len(asked), _MAX_DIGESTS):
        some = asked[start : start + _MAX_DIGESTS]
        query = sm.select(orm.FileRow.owner, sa.func.sum(sm.col(orm.FileRow.size))).where(
            sm.col(orm.FileRow.owner).in_(some)
        )
        found |= {
            names[owner]: int(size) for owner, size in tx.exec(query.group_by(sm.col(orm.FileRow.owner)))
        }
    return found


def add_owned(tx: Transaction, owner: AdapterName | Digest, digest: Digest, size: int, by: str) -> None:
    """Makes the owner an owner of these bytes, so that sweeps keep them; the first sender pays for them."""
    found = _file(tx, owner, digest)
    if found is None:
        insert_new(tx, "files", {"owner": str(owner), "digest": digest.hex, "size": size, "stored_by": by})
        stored_use.add_file(tx, str(owner), size, by)
    elif found.size != size or found.unneeded_since is not None:
        payer = found.stored_by
        tx.merge(
            orm.FileRow(owner=str(owner), digest=digest.hex, size=size, unneeded_since=None, stored_by=payer)
        )
        stored_use.add_file(tx, str(owner), size - found.size, payer)
    pending_deletes.unmark_for_delete(tx, digest)


def is_owned(tx: Transaction, digest: Digest) -> bool:
    """Whether the bytes have any owner."""
    return (
        tx.exec(sm.select(orm.FileRow.owner).where(orm.FileRow.digest == digest.hex).limit(1)).first()
        is not None
    )


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
            sa.update(orm.FileRow)
            .where(sm.col(orm.FileRow.owner) == str(owner), sm.col(orm.FileRow.digest).in_(marked))
            .values(unneeded_since=None)
        )
    return {digest: row.size for digest, row in found.items()}


def open_session(
    tx: Transaction, id: str, owner: AdapterName | Digest, digest: Digest, size: int, at: datetime, by: str
) -> UploadSessionRecord:
    row = {"id": id, "owner": str(owner), "tenant": tenant_of(owner), "digest": digest.hex, "size": size}
    insert_new(tx, "uploads", {**row, "created_by": by, "touched_at": at})
    return UploadSessionRecord(id, owner, digest, size, by, at, False)


def find_session(tx: Reads, id: str) -> UploadSessionRecord | None:
    rows = run_select(tx, _session, {"id": id})
    return _record(rows[0]) if rows else None


def unfinished_sessions(
    tx: Reads, owner: AdapterName | Digest, digest: Digest, size: int
) -> list[UploadSessionRecord]:
    """The owner's open sessions for the same bytes, most recently used first."""
    asked = {"owner": str(owner), "digest": digest.hex, "size": size}
    return [_record(row) for row in run_select(tx, _unfinished, asked)]


def has_unfinished(tx: Reads, owner: AdapterName, size: int) -> bool:
    """Whether the owner has an open session for a file of that size."""
    return bool(run_select(tx, _unfinished_of_size, {"owner": str(owner), "size": size}))


def set_expected(tx: Transaction, id: str, digest: Digest) -> None:
    """Sets the digest that a session's bytes must have."""
    tx.execute(sa.update(orm.UploadRow).where(sm.col(orm.UploadRow.id) == id).values(digest=digest.hex))


def reserved_bytes(tx: Reads, owner: AdapterName | Digest, digest: Digest) -> int:
    """The bytes that open sessions for these bytes have reserved."""
    (row,) = run_select(tx, _reserved, {"owner": str(owner), "digest": digest.hex})
    return int(row.size or 0)


def sessions_idle_since(
    tx: Transaction, subject: QuotaSubject, before: datetime
) -> list[UploadSessionRecord]:
    """The open sessions in a namespace, or of a principal, that were not used since `before`, the longest
    idle first.
    """
    query = sm.select(orm.UploadRow).where(
        (sm.col(orm.UploadRow.tenant) if subject.scope == "namespace" else sm.col(orm.UploadRow.created_by))
        == subject.name,
        sm.col(orm.UploadRow.is_finished).is_(False),
        sm.col(orm.UploadRow.touched_at) < before,
    )
    return [_record(row) for row in tx.exec(query.order_by(sm.col(orm.UploadRow.touched_at)))]


def open_tenants(tx: Transaction) -> list[str]:
    """The tenants with open sessions: namespaces, and `BASES`."""
    query = sm.select(orm.UploadRow.tenant).where(sm.col(orm.UploadRow.is_finished).is_(False)).distinct()
    return list(tx.exec(query.order_by(orm.UploadRow.tenant)))


def open_page(tx: Transaction, tenants: Sequence[str], after: str, limit: int) -> list[UploadSessionRecord]:
    """The tenants' open sessions whose ids come after `after`, in the order of their ids."""
    query = sm.select(orm.UploadRow).where(
        sm.col(orm.UploadRow.tenant).in_(tenants),
        sm.col(orm.UploadRow.is_finished).is_(False),
        sm.col(orm.UploadRow.id) > after,
    )
    return [_record(row) for row in tx.exec(query.order_by(orm.UploadRow.id).limit(limit))]


@statement
def _touch() -> sa.Update:
    uploads = tables.uploads
    touched: dict[str, object] = {"touched_at": sa.bindparam("touched_at")}
    return uploads.update().where(uploads.c.id == sa.bindparam("of_id")).values(touched)


@statement
def _finish() -> sa.Update:
    uploads = tables.uploads
    finished: dict[str, object] = {"touched_at": sa.bindparam("touched_at"), "is_finished": True}
    return uploads.update().where(uploads.c.id == sa.bindparam("of_id")).values(finished)


@statement
def _close() -> sa.Delete:
    return tables.uploads.delete().where(tables.uploads.c.id == sa.bindparam("of_id"))


def touch(tx: Transaction, id: str, at: datetime) -> bool:
    """Records that a session is in use; returns whether it exists."""
    return count_changed(tx, _touch, {"of_id": id, "touched_at": at}) > 0


def finish_session(tx: Transaction, id: str, at: datetime) -> None:
    change(tx, _finish, {"of_id": id, "touched_at": at})


def close_session(tx: Transaction, id: str) -> None:
    change(tx, _close, {"of_id": id})


def close_idle(tx: Transaction, ids: Iterable[str], before: datetime) -> None:
    """Closes the sessions among these that are still unused since `before`."""
    for id in ids:
        tx.execute(
            sa.delete(orm.UploadRow).where(
                sm.col(orm.UploadRow.id) == id, sm.col(orm.UploadRow.touched_at) < before
            )
        )


@statement
def _idle() -> Selection:
    return sa.select(tables.uploads.c.id).where(tables.uploads.c.touched_at < sa.bindparam("before"))


def idle_sessions(tx: Reads, before: datetime) -> list[str]:
    """The ids of the sessions that have not been used since `before`."""
    return [row.id for row in run_select(tx, _idle, {"before": before})]


def find_weights_digest(tx: Reads, file: Digest) -> Digest | None:
    """The weights digest of a safetensors file, if it was derived before."""
    rows = run_select(tx, _weights_digest, {"file": file.hex})
    return Digest(rows[0].weights_digest) if rows else None


def store_weights_digest(tx: Transaction, file: Digest, weights: Digest) -> None:
    known = find_weights_digest(tx, file)
    if known is None:
        insert_new(tx, "weights", {"file_digest": file.hex, "weights_digest": weights.hex})
    elif known != weights:
        tx.merge(orm.WeightsDigestRow(file_digest=file.hex, weights_digest=weights.hex))


def tenant_of(owner: AdapterName | Digest) -> str:
    """The tenant whose quota an owner counts against: its namespace, or all bases together."""
    return owner.namespace if isinstance(owner, AdapterName) else BASES


def _file(tx: Reads, owner: AdapterName | Digest, digest: Digest) -> Columns | None:
    rows = run_select(tx, _file_query, {"owner": str(owner), "digest": digest.hex})
    return rows[0] if rows else None


def _record(row: orm.UploadRow | Columns) -> UploadSessionRecord:
    owner = Digest.parse(row.owner) if row.owner.startswith("sha256:") else AdapterName.parse(row.owner)
    return UploadSessionRecord(
        row.id, owner, Digest(row.digest), row.size, row.created_by, row.touched_at, row.is_finished
    )
