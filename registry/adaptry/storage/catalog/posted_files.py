"""Posted files in the catalog: those that are kept apart, and receipts for a day of those that became
evidence.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import cast

import sqlalchemy as sa
from sqlalchemy import ColumnElement, false, func, or_
from sqlalchemy.orm import Mapped, defer
from sqlmodel import col, select

from adaptry.core.access.resources import ALL_NAMES
from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData
from adaptry.core.refs import AdapterName
from adaptry.registry.inbox import MAX_FILES_OF_ONE, KeptResults, PostedFile
from adaptry.registry.records import Page
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.access import is_among
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import PostedFileRow

_RECEIPTS = timedelta(days=1)
_LEVEL = 6


def insert(tx: Transaction, row: PostedFileRow, data: bytes | None) -> PostedFileRow:
    """Adds the row with the bytes, which are stored compressed."""
    row.content = zlib.compress(data, _LEVEL) if data is not None else None
    row.stored = len(row.content) if row.content is not None else 0
    tx.add(row)
    tx.flush()
    return row


def content(row: PostedFileRow) -> bytes | None:
    """The bytes. Raises `CorruptData`."""
    if row.content is None:
        return None
    try:
        data = zlib.decompress(row.content)
    except zlib.error:
        data = b""
    if Digest.of(data).hex != row.file_digest:
        raise CorruptData(f"the posted file {row.id} is damaged in the registry; post it again")
    return data


def find(tx: Transaction, id: int) -> PostedFileRow | None:
    return tx.get(PostedFileRow, id) if 0 < id <= cursors.BIG_INTEGER else None


def find_same(tx: Transaction, namespace: str, by: str, run: str, file: Digest) -> PostedFileRow | None:
    """The file of that digest that the same principal posted before."""
    query = select(PostedFileRow).where(*_of_run(namespace, by, run), PostedFileRow.file_digest == file.hex)
    return tx.exec(query).first()


def results_of_run(tx: Transaction, namespace: str, by: str, run: str) -> PostedFileRow | None:
    """The newest results of a run."""
    query = select(PostedFileRow).where(*_of_run(namespace, by, run), col(PostedFileRow.task).is_(None))
    return tx.exec(query.order_by(col(PostedFileRow.id).desc())).first()


def has_kept_results(tx: Transaction, namespace: str, by: str, run: str) -> bool:
    """Whether results of a run are kept apart."""
    query = select(PostedFileRow.id).where(
        *_of_run(namespace, by, run), col(PostedFileRow.task).is_(None), _IS_KEPT
    )
    return tx.exec(query.limit(1)).first() is not None


def kept_samples(tx: Transaction, results: PostedFileRow) -> Sequence[PostedFileRow]:
    """The samples files that are kept apart with results, without their bytes; of a task's, the newest."""
    query = (
        select(PostedFileRow)
        .where(*_kept_samples_of(results))
        .order_by(col(PostedFileRow.id))
        .options(defer(col(PostedFileRow.content)))  # type: ignore[arg-type]  # a column, for mypy a value
    )
    newest = {row.task: row for row in tx.exec(query)}
    return list(newest.values())


def kept_use(tx: Transaction, namespace: str, by: str | None = None) -> tuple[int, int]:
    """The number of files that are kept apart in a namespace, and their total size: of all principals, or of
    one.
    """
    query = select(func.count(), func.coalesce(func.sum(PostedFileRow.stored), 0)).where(
        PostedFileRow.namespace == namespace, _IS_KEPT
    )
    if by is not None:
        query = query.where(PostedFileRow.posted_by == by)
    files, size = tx.exec(query).one()
    return files, int(size)


def posted_by(tx: Transaction, namespace: str, by: str, limit: int) -> tuple[PostedFile, ...]:
    """The files that a principal posted, newest first."""
    query = (
        select(PostedFileRow)
        .where(PostedFileRow.namespace == namespace, PostedFileRow.posted_by == by)
        .order_by(col(PostedFileRow.id).desc())
        .options(defer(col(PostedFileRow.content)))  # type: ignore[arg-type]  # a column, for mypy a value
    )
    return tuple(posted_file(row) for row in tx.exec(query.limit(limit)))


def page(
    tx: Transaction,
    namespace: str,
    by: str | None,
    cursor: str | None,
    limit: int,
    names: Collection[str] = (ALL_NAMES,),
) -> Page[KeptResults]:
    """The results that are kept apart, newest first: all, or those that `by` posted; with `names`, as in
    `Resource.names`, those that state one of these adapters of the namespace.
    """
    about = f"kept results {namespace} {by!r}"
    before = cursors.decode_number(cursor, about, cursors.BIG_INTEGER)
    query = (
        select(PostedFileRow)
        .where(PostedFileRow.namespace == namespace, _IS_KEPT, col(PostedFileRow.task).is_(None))
        .order_by(col(PostedFileRow.id).desc())
        .options(defer(col(PostedFileRow.content)))  # type: ignore[arg-type]  # as above
    )
    if by is not None:
        query = query.where(PostedFileRow.posted_by == by)
    if ALL_NAMES not in names:
        adapter = cast("Mapped[str]", col(PostedFileRow.adapter))
        stated = (is_among(adapter, f"{namespace}/{one}") for one in names)
        query = query.where(or_(false(), *stated))
    if before is not None:
        query = query.where(col(PostedFileRow.id) < before)
    rows = tx.exec(query.limit(limit + 1)).all()
    items = tuple(kept_results(tx, row) for row in rows[:limit])
    return Page[KeptResults](
        items=items, next=cursors.encode(items[-1].id, about) if len(rows) > limit else None
    )


def delete(tx: Transaction, results: PostedFileRow) -> None:
    """Deletes results and all samples in the inbox that belong to them, also those that newer samples
    replace.
    """
    tx.execute(sa.delete(PostedFileRow).where(col(PostedFileRow.id) == results.id))
    tx.execute(sa.delete(PostedFileRow).where(*_kept_samples_of(results)))


def expire_receipts(tx: Transaction, namespace: str, by: str, now: datetime) -> None:
    """Deletes receipts that are older than a day, and the oldest of a principal who has very many."""
    is_receipt = col(PostedFileRow.reason).is_(None)
    tx.execute(sa.delete(PostedFileRow).where(is_receipt, col(PostedFileRow.posted_at) < now - _RECEIPTS))
    own = (col(PostedFileRow.namespace) == namespace, col(PostedFileRow.posted_by) == by, is_receipt)
    newest = select(PostedFileRow.id).where(*own).order_by(col(PostedFileRow.id).desc())
    oldest_kept = tx.exec(newest.offset(MAX_FILES_OF_ONE).limit(1)).first()
    if oldest_kept is not None:
        tx.execute(sa.delete(PostedFileRow).where(*own, col(PostedFileRow.id) <= oldest_kept))


def posted_file(row: PostedFileRow) -> PostedFile:
    assert row.id is not None
    return PostedFile(
        id=row.id,
        path=row.path,
        file=Digest(row.file_digest),
        git_id=row.git_id,
        size=row.size,
        at=row.posted_at,
        adapter=_name(row.adapter),
        revision=row.subject or row.revision,
        reason=row.reason,
    )


def kept_results(tx: Transaction, row: PostedFileRow) -> KeptResults:
    assert row.id is not None
    assert row.reason is not None
    return KeptResults(
        id=row.id,
        namespace=row.namespace,
        path=row.path,
        file=Digest(row.file_digest),
        size=row.size,
        at=row.posted_at,
        by=row.posted_by,
        model=row.model,
        adapter=_name(row.adapter),
        revision=row.revision,
        samples=_count_samples(tx, row),
        reason=row.reason,
    )


_IS_KEPT = col(PostedFileRow.reason).is_not(None)


def _of_run(namespace: str, by: str, run: str) -> tuple[ColumnElement[bool], ...]:
    return (
        col(PostedFileRow.namespace) == namespace,
        col(PostedFileRow.posted_by) == by,
        col(PostedFileRow.run) == run,
    )


def _kept_samples_of(results: PostedFileRow) -> tuple[ColumnElement[bool], ...]:
    run = _of_run(results.namespace, results.posted_by, results.run)
    return (*run, col(PostedFileRow.task).is_not(None), _IS_KEPT)


def _count_samples(tx: Transaction, row: PostedFileRow) -> int:
    query = select(func.count(func.distinct(PostedFileRow.task))).where(*_kept_samples_of(row))
    return tx.exec(query).one()


def _name(text: str | None) -> AdapterName | None:
    return AdapterName.parse(text) if text else None
