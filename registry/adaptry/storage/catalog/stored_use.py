"""Storage use of namespaces and principals: counters, updated in each change's own transaction.

A namespace pays for every file of each of its adapters, once for each adapter that has it, even if others
have the same bytes; a principal pays for the files that it sent, and for the versions that it pushed. So
nobody learns from their own use whether others have a file. Bases are one namespace (`files.BASES`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import bindparam, delete, func
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.core.quotas import QuotaScope, QuotaSubject, StoredUse
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import change, insert_row
from adaptry.storage.catalog.rows import AdapterRow, FileRow, StoredUseRow, UploadRow, VersionRow
from adaptry.storage.catalog.version_info import table_of

BASES = "bases"
"""The namespace of all bases: a reserved name, so no other namespace can use up their share."""

_USE, _UPLOADS = table_of(StoredUseRow), table_of(UploadRow)
_KEY = (_USE.c.scope == bindparam("of_scope"), _USE.c.name == bindparam("of_name"))
_FIND = select_columns(_USE.c.bytes, _USE.c.versions).where(*_KEY)
_ADD = (
    _USE.update()
    .where(*_KEY)
    .values(
        bytes=_USE.c.bytes + bindparam("more_bytes"), versions=_USE.c.versions + bindparam("more_versions")
    )
)
_OPEN = select_columns(_UPLOADS.c.owner, _UPLOADS.c.digest, _UPLOADS.c.size).where(
    _UPLOADS.c.is_finished.is_(False)
)
_OPEN_IN: Mapping[QuotaScope, object] = {
    "namespace": _OPEN.where(_UPLOADS.c.tenant == bindparam("of_name")),
    "principal": _OPEN.where(_UPLOADS.c.created_by == bindparam("of_name")),
}

Use = dict[QuotaSubject, tuple[int, int]]
"""Bytes and versions of each."""


def namespace_of(owner: str) -> QuotaSubject:
    """The namespace that pays for an owner's files."""
    is_base = owner.startswith("sha256:")
    return QuotaSubject("namespace", BASES if is_base else AdapterName.parse(owner).namespace)


def find(tx: Reads, subject: QuotaSubject) -> StoredUse:
    """The use of a name, and the bytes reserved by its open uploads: each file once, however often it is
    being sent.
    """
    parameters = {"of_scope": subject.scope, "of_name": subject.name}
    rows = run_select(tx, _FIND, parameters)
    uploads = run_select(tx, _OPEN_IN[subject.scope], {"of_name": subject.name})  # type: ignore[arg-type]
    reserved = {(row.owner, row.digest): int(row.size) for row in uploads}
    stored, versions = (rows[0].bytes, rows[0].versions) if rows else (0, 0)
    return StoredUse(stored, versions, sum(reserved.values()), len(uploads))


def add_file(tx: Transaction, owner: str, size: int, by: str | None) -> None:
    """Adds a file that `by` sent to an owner's use (a negative size removes it)."""
    _add(tx, namespace_of(owner), size, 0)
    if by is not None:
        _add(tx, QuotaSubject("principal", by), size, 0)


def add_version(tx: Transaction, namespace: str, by: str) -> None:
    _add(tx, QuotaSubject("namespace", namespace), 0, 1)
    _add(tx, QuotaSubject("principal", by), 0, 1)


@contextmanager
def recounted(tx: Transaction, adapter: int, *owners: str) -> Iterator[None]:
    """Around a change of an adapter as a whole: what it and the owners of these names use is counted before
    and after.
    """
    before = _use_of(tx, adapter, owners)
    yield
    tx.flush()
    after = _use_of(tx, adapter, owners)
    for subject in before.keys() | after.keys():
        had, has = before.get(subject, (0, 0)), after.get(subject, (0, 0))
        if had != has:
            _add(tx, subject, has[0] - had[0], has[1] - had[1])


def computed(tx: Transaction) -> Use:
    """The use of all names, counted from the rows of files and versions. Takes a second for each million."""
    return _sum(
        tx.exec(
            select(FileRow.owner, FileRow.stored_by, func.sum(FileRow.size)).group_by(
                FileRow.owner, col(FileRow.stored_by)
            )
        ).all(),
        tx.exec(
            select(AdapterRow.namespace, VersionRow.created_by, func.count())
            .join(AdapterRow, col(AdapterRow.id) == col(VersionRow.adapter_id))
            .group_by(AdapterRow.namespace, VersionRow.created_by)
        ).all(),
    )


def recorded(tx: Transaction) -> Use:
    """What the counters say, without those that are zero."""
    rows = run_select(tx, select_columns(_USE), {})
    return {
        QuotaSubject(row.scope, row.name): (row.bytes, row.versions)
        for row in rows
        if row.bytes or row.versions
    }


def rebuild(tx: Transaction) -> None:
    """Sets the counters to what the rows of files and versions give."""
    tx.execute(delete(StoredUseRow))
    for subject, (size, versions) in computed(tx).items():
        _add(tx, subject, size, versions)


def largest(tx: Transaction, most: int) -> list[tuple[QuotaSubject, int, int]]:
    """Whoever stores most bytes, with their bytes and versions."""
    query = select_columns(_USE).order_by(_USE.c.bytes.desc()).limit(most)
    return [(QuotaSubject(row.scope, row.name), row.bytes, row.versions) for row in run_select(tx, query, {})]


def _add(tx: Transaction, subject: QuotaSubject, size: int, versions: int) -> None:
    more = {"more_bytes": size, "more_versions": versions}
    if not change(tx, _ADD, {"of_scope": subject.scope, "of_name": subject.name, **more}):
        insert_row(tx, StoredUseRow(scope=subject.scope, name=subject.name, bytes=size, versions=versions))


def _use_of(tx: Transaction, adapter: int, owners: tuple[str, ...]) -> Use:
    """What an adapter's versions and some owners' files use."""
    files = select(FileRow.owner, FileRow.stored_by, func.sum(FileRow.size)).where(
        col(FileRow.owner).in_(owners)
    )
    versions = (
        select(AdapterRow.namespace, VersionRow.created_by, func.count())
        .join(AdapterRow, col(AdapterRow.id) == col(VersionRow.adapter_id))
        .where(VersionRow.adapter_id == adapter)
    )
    return _sum(
        tx.exec(files.group_by(FileRow.owner, col(FileRow.stored_by))).all(),
        tx.exec(versions.group_by(AdapterRow.namespace, VersionRow.created_by)).all(),
    )


def _sum(files: object, versions: object) -> Use:
    """The sums of files by owner and sender, and of versions by namespace and pusher."""
    found: dict[QuotaSubject, list[int]] = defaultdict(lambda: [0, 0])
    for owner, by, size in files:  # type: ignore[attr-defined]
        found[namespace_of(owner)][0] += int(size)
        if by is not None:
            found[QuotaSubject("principal", by)][0] += int(size)
    for namespace, by, count in versions:  # type: ignore[attr-defined]
        found[QuotaSubject("namespace", namespace)][1] += count
        found[QuotaSubject("principal", by)][1] += count
    return {subject: (size, count) for subject, (size, count) in found.items()}
