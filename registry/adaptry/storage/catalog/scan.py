"""Reads the whole catalog for verification, a page at a time, so that memory does not grow with its size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.manifest import Manifest
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.manifests import stored_manifest
from adaptry.storage.catalog.rows import AdapterRow, CommitRow, EpochRow, EventRow, FileRow, RevisionRow, Row

_BATCH = 200


def is_empty(catalog: Catalog) -> bool:
    """Whether the catalog has no rows except its first epoch's, as a new catalog."""
    some = (table for table in Row.metadata.tables.values() if table.name != EpochRow.__tablename__)
    tables = sorted(some, key=lambda table: table.name != EventRow.__tablename__)
    with catalog.read() as tx:
        return not any(
            tx.connection().execute(select(1).select_from(table).limit(1)).first() for table in tables
        )


def manifests(catalog: Catalog) -> Iterator[tuple[Digest, bytes]]:
    """Every revision's digest and manifest bytes."""
    after = ""
    while True:
        with catalog.read() as tx:
            query = select(RevisionRow).where(RevisionRow.digest > after).order_by(RevisionRow.digest)
            rows = tx.exec(query.limit(_BATCH)).all()
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
        holders = (
            select(AdapterRow.name)
            .join(CommitRow)
            .where(CommitRow.digest == digest.hex, col(AdapterRow.deleted_at).is_(None))
        )
        for name in tx.exec(holders.distinct()):
            query = select(FileRow.digest).where(FileRow.owner == name, col(FileRow.digest).in_(wanted))
            have = set(tx.exec(query))
            yield from ((name, path) for file, path in wanted.items() if file not in have)


def files_of_another_size(catalog: Catalog, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Owners of this manifest's files whose row has another size, with the path of each."""
    wanted = {entry.sha256.hex: entry for entry in manifest.files}
    if not wanted:
        return
    with catalog.read() as tx:
        query = select(FileRow.owner, FileRow.digest, FileRow.size).where(col(FileRow.digest).in_(wanted))
        for owner, digest, size in tx.exec(query):
            if size != wanted[digest].size:
                yield owner, wanted[digest].path


def referenced_files(catalog: Catalog) -> dict[Digest, int]:
    """Every file with an owner, with its size."""
    with catalog.read() as tx:
        return {Digest(file): size for file, size in tx.exec(select(FileRow.digest, FileRow.size).distinct())}


def revisions_with(catalog: Catalog, digests: Iterable[Digest]) -> dict[Digest, list[Digest]]:
    """The revisions whose manifests name a file, by file. Unreadable manifests are skipped."""
    wanted = set(digests)
    found: dict[Digest, list[Digest]] = {digest: [] for digest in wanted}
    if not wanted:
        return found
    for revision, data in manifests(catalog):
        try:
            manifest = stored_manifest(revision, data)
        except AdaptryError:
            continue
        for digest in wanted.intersection(entry.sha256 for entry in manifest.files):
            found[digest].append(revision)
    return found


def owners_of(catalog: Catalog, digest: Digest) -> list[str]:
    """The owners of a file: adapters by name, bases by id."""
    with catalog.read() as tx:
        return list(
            tx.exec(select(FileRow.owner).where(FileRow.digest == digest.hex).order_by(FileRow.owner))
        )
