"""Walks over the whole catalog, for whoever verifies it: a page at a time, so that size does not matter."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import exists, func
from sqlmodel import col, select

from adaptry.catalog import postgres, sqlite
from adaptry.catalog.database import Catalog
from adaptry.catalog.rows import (
    AdapterRow,
    CommitRow,
    EpochRow,
    EventRow,
    FileRow,
    MarkRow,
    MetricRow,
    MetricSummaryRow,
    RevisionRow,
    Row,
    VersionDetailRow,
    VersionRow,
)
from adaptry.chains import MAIN
from adaptry.digest import Digest
from adaptry.manifest import Manifest

_AT_ONCE = 200


def is_empty(catalog: Catalog) -> bool:
    """Whether it has no row but its first epoch's, as one has that was just made."""
    some = (table for table in Row.metadata.tables.values() if table.name != EpochRow.__tablename__)
    tables = sorted(some, key=lambda table: table.name != EventRow.__tablename__)
    with catalog.read() as tx:
        return not any(
            tx.connection().execute(select(1).select_from(table).limit(1)).first() for table in tables
        )


def broken_rows(catalog: Catalog) -> Iterator[str]:
    """What the database itself and our own invariants have to complain about, in sentences."""
    with catalog.read() as tx:
        connection = tx.connection()
        kind = postgres if connection.dialect.name == "postgresql" else sqlite
        yield from kind.complaints(connection)
        too_high = select(AdapterRow.name).join(VersionRow).where(VersionRow.number >= AdapterRow.next_number)
        for name in tx.exec(too_high.distinct()):
            yield f"{name} has a version beyond its numbering"
        undescribed = select(VersionRow.digest).where(
            col(VersionRow.id).not_in(select(VersionDetailRow.version_id))
        )
        for digest in tx.exec(undescribed):
            yield f"a version of revision sha256:{digest[:12]} has no spec and report"
        unlinked = select(AdapterRow.name, VersionRow.number).join(VersionRow)
        is_linked = exists().where(
            col(CommitRow.adapter_id) == col(VersionRow.adapter_id),
            col(CommitRow.digest) == col(VersionRow.digest),
        )
        for name, number in tx.exec(unlinked.where(~is_linked)):
            yield f"version {number} of {name} is no commit of it"
        headless = select(AdapterRow.name).where(col(AdapterRow.deleted_at).is_(None))
        has_main = exists().where(col(MarkRow.adapter_id) == col(AdapterRow.id), col(MarkRow.name) == MAIN)
        for name in tx.exec(headless.where(~has_main)):
            yield f"{name} has no branch {MAIN}"
        logged = select(func.count()).select_from(
            select(MetricRow.version_id, MetricRow.metric).distinct().subquery()
        )
        summed = select(func.count()).select_from(MetricSummaryRow)
        if tx.exec(logged).one() != tx.exec(summed).one():
            yield "metrics and what searches know of them disagree"


def manifests(catalog: Catalog) -> Iterator[tuple[Digest, bytes]]:
    """Every revision's digest and manifest bytes."""
    after = ""
    while True:
        with catalog.read() as tx:
            query = select(RevisionRow).where(RevisionRow.digest > after).order_by(RevisionRow.digest)
            rows = tx.exec(query.limit(_AT_ONCE)).all()
        if not rows:
            return
        for row in rows:
            yield Digest(row.digest), row.manifest
        after = rows[-1].digest


def files_not_owned(catalog: Catalog, digest: Digest, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Adapters with a commit of this revision, and files of it that they do not have."""
    wanted = {entry.sha256.hex: entry.path for entry in manifest.files}
    if not wanted:
        return
    with catalog.read() as tx:
        holders = select(AdapterRow.name).join(CommitRow).where(CommitRow.digest == digest.hex)
        for name in tx.exec(holders.distinct()):
            query = select(FileRow.digest).where(FileRow.owner == name, col(FileRow.digest).in_(wanted))
            have = set(tx.exec(query))
            yield from ((name, path) for file, path in wanted.items() if file not in have)


def referenced_files(catalog: Catalog) -> dict[Digest, int]:
    """Every file that some owner has, with its size."""
    with catalog.read() as tx:
        return {Digest(file): size for file, size in tx.exec(select(FileRow.digest, FileRow.size).distinct())}


def owners_of(catalog: Catalog, digest: Digest) -> list[str]:
    """Who has a file: adapters by name, bases by id."""
    with catalog.read() as tx:
        return list(
            tx.exec(select(FileRow.owner).where(FileRow.digest == digest.hex).order_by(FileRow.owner))
        )
