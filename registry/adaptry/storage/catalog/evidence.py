"""Evidence in the catalog: rows of `metric_values`, which are only appended; a withdrawal marks them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import cast

from sqlalchemy import ColumnElement, and_, exists, func, or_, union_all, update
from sqlalchemy import select as select_columns
from sqlalchemy.orm import aliased
from sqlmodel import col, select
from sqlmodel.sql.expression import Select

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.evidence.values import Direction, EvidenceFile, EvidenceFormat, EvidenceValue
from adaptry.core.refs import AdapterName
from adaptry.registry.evidence import EvidenceInfo, EvidenceWithdrawal
from adaptry.registry.records import Page
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, MetricRow, VersionRow
from adaptry.storage.catalog.versions import VersionRecord

CONTENT = (
    *("metric", "value", "base_id", "task", "task_version", "task_hash", "filter", "stderr", "n"),
    *("direction", "dataset", "step", "harness", "harness_version", "harness_commit", "chat_template"),
    *("format", "file_digest", "samples_digest", "settings"),
)
"""The columns that say what was measured."""
_VALUE = tuple(name for name in CONTENT if name not in ("base_id", "samples_digest"))


def append(
    tx: Transaction, version: VersionRecord, base_id: str | None, file: EvidenceFile, at: datetime, by: str
) -> list[MetricRow]:
    """Adds those values of the file that the version does not have yet; returns their rows.

    A value that arrives again with samples is added, unless it was withdrawn. It takes the place of the one
    without samples (`page`).
    """
    there = list(tx.exec(select(MetricRow).where(*_of_file(version.key, file.digest.hex))))
    known = {(_measured(row), row.samples_digest) for row in there}
    values = {_measured(row) for row in there}
    withdrawn = {_measured(row) for row in there if row.withdrawn_at is not None}
    rows = [_new_row(version, base_id, file, value, at, by) for value in dict.fromkeys(file.values)]
    added = [
        row
        for row in rows
        if (_measured(row), row.samples_digest) not in known
        and _measured(row) not in (values if row.samples_digest is None else withdrawn)
    ]
    tx.add_all(added)
    tx.flush()
    return added


def content_digest(rows: Sequence[MetricRow]) -> Digest:
    """The digest of all measured values, in the order of the rows; an event records it for an audit.

    Rows without settings have the digest that they had before there was such a column.
    """
    return Digest.of(strictjson.canonical([_content(row) for row in rows]))


def _content(row: MetricRow) -> list[object]:
    names = CONTENT if row.settings is not None else CONTENT[:-1]
    return [getattr(row, name) for name in names]


def ids_digest(ids: Sequence[int]) -> Digest:
    return Digest.of(strictjson.canonical(sorted(ids)))


def page(
    tx: Transaction,
    version: VersionRecord,
    task: str | None,
    metric: str | None,
    cursor: str | None,
    limit: int,
) -> Page[EvidenceInfo]:
    """A page of evidence, newest first, without values that were added again with their samples."""
    about = f"evidence {version.key} {task!r} {metric!r}"
    before = cursors.decode_number(cursor, about, cursors.BIG_INTEGER)
    query = _query().where(MetricRow.version_id == version.key, ~_has_newer_with_samples())
    query = query.order_by(col(MetricRow.id).desc())
    if task is not None:
        query = query.where(MetricRow.task == task)
    if metric is not None:
        query = query.where(MetricRow.metric == metric)
    if before is not None:
        query = query.where(col(MetricRow.id) < before)
    rows = tx.exec(query.limit(limit + 1)).all()
    items = tuple(_info(row, version_row, name) for row, version_row, name in rows[:limit])
    return Page[EvidenceInfo](
        items=items, next=cursors.encode(items[-1].id, about) if len(rows) > limit else None
    )


def newest(tx: Transaction, versions: Sequence[int], limit: int) -> dict[int, list[EvidenceInfo]]:
    """The newest evidence of each version by its key, as `page` shows it, in one statement."""
    found: dict[int, list[EvidenceInfo]] = {key: [] for key in versions}
    parts = [
        select(MetricRow.id)
        .where(MetricRow.version_id == key, ~_has_newer_with_samples())
        .order_by(col(MetricRow.id).desc())
        .limit(limit)
        .subquery()
        for key in found
    ]
    if parts:
        ids = union_all(*(select_columns(part.c.id) for part in parts))
        query = _query().where(col(MetricRow.id).in_(ids)).order_by(col(MetricRow.id).desc())
        for row, version_row, name in tx.exec(query):
            found[row.version_id].append(_info(row, version_row, name))
    return found


def newest_of_tasks(
    tx: Transaction, version: VersionRecord, tasks: Collection[str], metrics: Collection[str]
) -> tuple[EvidenceInfo, ...]:
    """The newest evidence in force for each metric and filter, of these tasks and of these metrics without a
    task.
    """
    wanted = or_(
        col(MetricRow.task).in_(tasks),
        and_(col(MetricRow.task).is_(None), col(MetricRow.metric).in_(metrics)),
    )
    newest = (
        select(func.max(MetricRow.id))
        .where(MetricRow.version_id == version.key, wanted, col(MetricRow.withdrawn_at).is_(None))
        .group_by(col(MetricRow.task), col(MetricRow.metric), col(MetricRow.filter))
    )
    rows = tx.exec(_query().where(col(MetricRow.id).in_(newest)).order_by(col(MetricRow.id)))
    return tuple(_info(*row) for row in rows)


def find(tx: Transaction, id: int) -> EvidenceInfo | None:
    if not 0 < id <= cursors.BIG_INTEGER:
        return None
    found = tx.exec(_query().where(MetricRow.id == id)).first()
    return _info(*found) if found else None


def version_key(tx: Transaction, id: int) -> int:
    """The key of the version that was measured."""
    return tx.get_one(MetricRow, id).version_id


def withdraw(tx: Transaction, ids: Sequence[int], at: datetime, by: str, reason: str) -> None:
    change = {"withdrawn_at": at, "withdrawn_by": by, "withdrawn_reason": reason}
    tx.execute(update(MetricRow).where(col(MetricRow.id).in_(ids)).values(change))


def ids_in_force_of_file(tx: Transaction, version: int, file: Digest) -> list[int]:
    """The ids of a file's values that are not withdrawn."""
    query = select(MetricRow.id).where(*_of_file(version, file.hex), col(MetricRow.withdrawn_at).is_(None))
    return [id for id in tx.exec(query) if id is not None]


def ids_in_force_of_value(tx: Transaction, id: int) -> list[int]:
    """The ids of a value and of its copies with other samples, as far as they are not withdrawn."""
    row = tx.get_one(MetricRow, id)
    if row.file_digest is None:
        return [id] if row.withdrawn_at is None else []
    query = select(MetricRow).where(
        *_of_file(row.version_id, row.file_digest), col(MetricRow.withdrawn_at).is_(None)
    )
    return [one.id for one in tx.exec(query) if one.id is not None and _measured(one) == _measured(row)]


def files_of_adapter(tx: Transaction, adapter: str) -> Iterator[str]:
    """The digests of all files of the adapter's evidence, withdrawn or not."""
    for column in (MetricRow.file_digest, MetricRow.samples_digest):
        query = (
            select(column)
            .join(VersionRow, col(VersionRow.id) == col(MetricRow.version_id))
            .join(AdapterRow, col(AdapterRow.id) == col(VersionRow.adapter_id))
            .where(AdapterRow.name == adapter, col(MetricRow.file_digest).is_not(None))
            .distinct()
        )
        yield from (digest for digest in tx.exec(query) if digest is not None)


def owned_copies(
    tx: Transaction, wanted: Collection[Digest]
) -> Iterator[tuple[Digest, AdapterName, None, str]]:
    """The requested files that belong to evidence, each with its adapter and its kind."""
    for column in (MetricRow.file_digest, MetricRow.samples_digest):
        query = (
            select(column, AdapterRow.name, func.min(MetricRow.id))
            .join(VersionRow, col(VersionRow.id) == col(MetricRow.version_id))
            .join(AdapterRow, col(AdapterRow.id) == col(VersionRow.adapter_id))
            .where(col(column).in_({digest.hex for digest in wanted}), col(AdapterRow.deleted_at).is_(None))
            .group_by(col(column), AdapterRow.name)
        )
        for hex, name, id in tx.exec(query):
            yield Digest(str(hex)), AdapterName.parse(name), None, f"a file of evidence {id}"


def _of_file(version: int, file: str) -> tuple[ColumnElement[bool], ...]:
    digest = col(MetricRow.file_digest)
    return col(MetricRow.version_id) == version, digest == file, digest.is_not(None)


def _measured(row: MetricRow) -> tuple[object, ...]:
    """The measured value, without the base, which may be bound later, and without its samples, which may
    arrive later.
    """
    return tuple(getattr(row, name) for name in _VALUE)


def _has_newer_with_samples() -> ColumnElement[bool]:
    """Whether the value, which has no samples, was added again with them."""
    newer = aliased(MetricRow)
    again = exists().where(
        col(newer.version_id) == col(MetricRow.version_id),
        col(newer.file_digest) == col(MetricRow.file_digest),
        col(newer.file_digest).is_not(None),  # worded so that the index is used
        col(newer.samples_digest).is_not(None),
        col(newer.id) > col(MetricRow.id),
        *(getattr(newer, name).is_not_distinct_from(getattr(MetricRow, name)) for name in _VALUE),
    )
    return and_(col(MetricRow.samples_digest).is_(None), col(MetricRow.file_digest).is_not(None), again)


def _new_row(
    version: VersionRecord,
    base_id: str | None,
    file: EvidenceFile,
    value: EvidenceValue,
    at: datetime,
    by: str,
) -> MetricRow:
    measured = value.model_dump(exclude={"samples"})
    return MetricRow(
        version_id=version.key,
        logged_at=at,
        logged_by=by,
        base_id=base_id,
        harness=file.harness,
        harness_version=file.harness_version,
        harness_commit=file.harness_commit,
        chat_template=file.chat_template,
        format=file.format,
        file_digest=file.digest.hex,
        samples_digest=value.samples.hex if value.samples else None,
        **measured,
    )


def _query() -> Select[MetricRow, VersionRow, str]:
    return (
        select(MetricRow, VersionRow, AdapterRow.name)
        .join(VersionRow, col(VersionRow.id) == col(MetricRow.version_id))
        .join(AdapterRow, col(AdapterRow.id) == col(VersionRow.adapter_id))
        .where(col(AdapterRow.deleted_at).is_(None))
    )


def _info(row: MetricRow, version: VersionRow, name: str) -> EvidenceInfo:
    assert row.id is not None
    withdrawn = None
    if row.withdrawn_at is not None:
        withdrawn = EvidenceWithdrawal(
            at=row.withdrawn_at, by=row.withdrawn_by or "", reason=row.withdrawn_reason or ""
        )
    return EvidenceInfo(
        id=row.id,
        name=AdapterName.parse(name),
        number=version.number,
        subject=Digest(version.digest),
        base=_digest(row.base_id),
        task=row.task,
        task_version=row.task_version,
        task_hash=row.task_hash,
        settings=row.settings,
        metric=row.metric,
        filter=row.filter,
        value=row.value,
        stderr=row.stderr,
        n=row.n,
        direction=cast(Direction, row.direction or "unknown"),
        dataset=row.dataset,
        step=row.step,
        harness=row.harness,
        harness_version=row.harness_version,
        harness_commit=row.harness_commit,
        chat_template=row.chat_template,
        format=cast(EvidenceFormat | None, row.format),
        file=_digest(row.file_digest),
        samples=_digest(row.samples_digest),
        at=row.logged_at,
        by=row.logged_by,
        withdrawn=withdrawn,
    )


def _digest(hex: str | None) -> Digest | None:
    return Digest(hex) if hex else None
