"""Storage use of namespaces and principals: counters, updated in each change's own transaction.

A namespace pays for every file of each of its adapters, once for each adapter that has it, even if others
have the same bytes; a principal pays for the files that it sent, and for the versions that it pushed. So a
namespace's or principal's own use does not reveal whether others have a file. Bases are one namespace
(`files.BASES`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from adaptry.core.quotas import QuotaScope, QuotaSubject, StoredUse
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.dialect import BEFORE_COMMIT
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import PreparedReads, run_select
from adaptry.storage.catalog.prepared_changes import count_changed, insert_new
from adaptry.storage.catalog.statement_texts import PreparedStatement, Selection, statement

BASES = "bases"
"""The namespace of all bases: a reserved name, so no other namespace can use up their share."""


def _key() -> tuple[sa.ColumnElement[bool], ...]:
    return (
        tables.stored_use.c.scope == sa.bindparam("of_scope"),
        tables.stored_use.c.name == sa.bindparam("of_name"),
    )


@statement
def _find() -> Selection:
    return sa.select(tables.stored_use.c.bytes, tables.stored_use.c.versions).where(*_key())


@statement
def _add_update() -> sa.Update:
    return (
        tables.stored_use.update()
        .where(*_key())
        .values(
            bytes=tables.stored_use.c.bytes + sa.bindparam("more_bytes"),
            versions=tables.stored_use.c.versions + sa.bindparam("more_versions"),
        )
    )


def _open(column: sa.ColumnElement[str]) -> Selection:
    return sa.select(tables.uploads.c.owner, tables.uploads.c.digest, tables.uploads.c.size).where(
        tables.uploads.c.is_finished.is_(False), column == sa.bindparam("of_name")
    )


@statement
def _open_in_namespace() -> Selection:
    return _open(tables.uploads.c.tenant)


@statement
def _open_of_principal() -> Selection:
    return _open(tables.uploads.c.created_by)


_OPEN_IN: Mapping[QuotaScope, PreparedStatement[sa.Select[Any]]] = {
    "namespace": _open_in_namespace,
    "principal": _open_of_principal,
}


Use = dict[QuotaSubject, tuple[int, int]]
"""Bytes and versions of each."""
_PENDING = "adaptry_stored_use"
"""Key in the `info` of a transaction: the `Use` that it has added but not yet written."""


def namespace_of(owner: str) -> QuotaSubject:
    """The namespace that pays for an owner's files."""
    is_base = owner.startswith("sha256:")
    return QuotaSubject("namespace", BASES if is_base else AdapterName.parse(owner).namespace)


def find(tx: Reads, subject: QuotaSubject) -> StoredUse:
    """The use of a name, and the bytes reserved by its open uploads: each file once, however often it is
    being sent.
    """
    if not isinstance(tx, PreparedReads):
        write_pending(tx)
    parameters = {"of_scope": subject.scope, "of_name": subject.name}
    rows = run_select(tx, _find, parameters)
    uploads = run_select(tx, _OPEN_IN[subject.scope], {"of_name": subject.name})
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
    """Surrounds a change of an adapter as a whole: counts before and after it what the adapter and the owners
    of these names use.
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
            sm.select(orm.FileRow.owner, orm.FileRow.stored_by, sa.func.sum(orm.FileRow.size)).group_by(
                orm.FileRow.owner, sm.col(orm.FileRow.stored_by)
            )
        ).all(),
        tx.exec(
            sm.select(orm.AdapterRow.namespace, orm.VersionRow.created_by, sa.func.count())
            .join(orm.AdapterRow, sm.col(orm.AdapterRow.id) == sm.col(orm.VersionRow.adapter_id))
            .where(sm.col(orm.AdapterRow.deleted_at).is_(None))
            .group_by(orm.AdapterRow.namespace, orm.VersionRow.created_by)
        ).all(),
    )


def recorded(tx: Transaction) -> Use:
    """The values of the counters, without those that are zero."""
    write_pending(tx)
    rows = run_select(tx, sa.select(tables.stored_use), {})
    return {
        QuotaSubject(row.scope, row.name): (row.bytes, row.versions)
        for row in rows
        if row.bytes or row.versions
    }


def rebuild(tx: Transaction) -> None:
    """Recomputes the counters from the rows of files and versions."""
    write_pending(tx)
    tx.execute(sa.delete(orm.StoredUseRow))
    for subject, (size, versions) in computed(tx).items():
        _add(tx, subject, size, versions)


def largest(tx: Transaction, maximum: int) -> list[tuple[QuotaSubject, int, int]]:
    """The namespaces and principals that store the most bytes, with their bytes and versions."""
    write_pending(tx)
    query = sa.select(tables.stored_use).order_by(tables.stored_use.c.bytes.desc()).limit(maximum)
    return [(QuotaSubject(row.scope, row.name), row.bytes, row.versions) for row in run_select(tx, query, {})]


def _add(tx: Transaction, subject: QuotaSubject, size: int, versions: int) -> None:
    """Adds to the use of a name at the end of the transaction, or when it is read: a push adds several
    times.
    """
    pending: Use | None = tx.info.get(_PENDING)
    if pending is None:
        pending = tx.info[_PENDING] = {}
        tx.info.setdefault(BEFORE_COMMIT, []).append(write_pending)
    had = pending.get(subject, (0, 0))
    pending[subject] = had[0] + size, had[1] + versions


def write_pending(tx: Transaction) -> None:
    """Writes the changes of counters that this transaction has collected so far."""
    pending: Use = tx.info.pop(_PENDING, {})
    for subject, (size, versions) in pending.items():
        _write(tx, subject, size, versions)


def _write(tx: Transaction, subject: QuotaSubject, size: int, versions: int) -> None:
    more = {"more_bytes": size, "more_versions": versions}
    if not count_changed(tx, _add_update, {"of_scope": subject.scope, "of_name": subject.name, **more}):
        row = {"scope": subject.scope, "name": subject.name, "bytes": size, "versions": versions}
        insert_new(tx, "stored_use", row)


def _use_of(tx: Transaction, adapter: int, owners: tuple[str, ...]) -> Use:
    """The storage that an adapter's versions and some owners' files use."""
    files = sm.select(orm.FileRow.owner, orm.FileRow.stored_by, sa.func.sum(orm.FileRow.size)).where(
        sm.col(orm.FileRow.owner).in_(owners)
    )
    versions = (
        sm.select(orm.AdapterRow.namespace, orm.VersionRow.created_by, sa.func.count())
        .join(orm.AdapterRow, sm.col(orm.AdapterRow.id) == sm.col(orm.VersionRow.adapter_id))
        .where(orm.VersionRow.adapter_id == adapter, sm.col(orm.AdapterRow.deleted_at).is_(None))
    )
    return _sum(
        tx.exec(files.group_by(orm.FileRow.owner, sm.col(orm.FileRow.stored_by))).all(),
        tx.exec(versions.group_by(orm.AdapterRow.namespace, orm.VersionRow.created_by)).all(),
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
