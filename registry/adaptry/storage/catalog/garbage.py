"""Files of an owner that neither its manifests nor its evidence name: found, marked, then deleted.

A transaction that needs a file again removes the mark (`files.clear_unneeded`), so if a row still has the
mark that a sweep saw, nothing newer needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, exists, union, update
from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog import damage, evidence, pending_deletes, stored_use, weight_measurements
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.manifests import stored_manifest
from adaptry.storage.catalog.rows import (
    AdapterRow,
    BaseFileRow,
    CommitRow,
    FileRow,
    InspectionRow,
    PostingRow,
    RevisionRow,
    TermRow,
    UploadRow,
    VersionRow,
    WeightsDigestRow,
)


@dataclass(frozen=True, slots=True)
class OwnedFile:
    """A file of an owner (an adapter by name, a base by id), and since when it is marked as unneeded."""

    owner: str
    digest: Digest
    size: int
    since: datetime | None
    stored_by: str | None = None


@dataclass(frozen=True, slots=True)
class UnownedRevision:
    """A revision without a commit in any adapter; `is_parent`: a version was made from it."""

    digest: Digest
    files: frozenset[Digest]
    is_parent: bool


def owners(tx: Transaction, after: str, limit: int) -> Sequence[str]:
    """The owners of files, in order."""
    query = select(FileRow.owner).where(FileRow.owner > after).distinct().order_by(FileRow.owner)
    return tx.exec(query.limit(limit)).all()


def of_owner(tx: Transaction, owner: str) -> tuple[list[OwnedFile], list[OwnedFile]]:
    """The files that no manifest of the owner names; and those that are marked although one does.

    An owner with an open upload needs all its files, since the new manifest may name them. Raises
    `CorruptData` if a stored manifest is damaged, because then the needed files are unknown.
    """
    is_sending = exists().where(col(UploadRow.owner) == owner, col(UploadRow.is_finished).is_(False))
    needed = None if tx.exec(select(is_sending)).one() else named_files(tx, owner)
    unneeded: list[OwnedFile] = []
    marked: list[OwnedFile] = []
    for row in tx.exec(select(FileRow).where(FileRow.owner == owner).order_by(FileRow.digest)):
        file = OwnedFile(row.owner, Digest(row.digest), row.size, row.unneeded_since, row.stored_by)
        if needed is not None and row.digest not in needed:
            unneeded.append(file)
        elif file.since is not None:
            marked.append(file)
    return unneeded, marked


def unowned_revisions(tx: Transaction, after: str, limit: int) -> list[UnownedRevision]:
    """Revisions that no adapter has, in digest order, after `after`."""
    query = select(RevisionRow).where(RevisionRow.digest > after, *_without_owner())
    rows = tx.exec(query.order_by(RevisionRow.digest).limit(limit)).all()
    return [
        UnownedRevision(
            Digest(row.digest),
            frozenset(entry.sha256 for entry in stored_manifest(Digest(row.digest), row.manifest).files),
            tx.exec(select(_is_parent(row.digest))).one(),
        )
        for row in rows
    ]


def mark_unneeded(tx: Transaction, garbage: Sequence[OwnedFile], at: datetime) -> None:
    """Marks those files that are not marked yet."""
    for file in garbage:
        tx.execute(update(FileRow).where(*_row(file)).values(unneeded_since=at))


def unmark_unneeded(tx: Transaction, garbage: Sequence[OwnedFile]) -> None:
    for file in garbage:
        tx.execute(update(FileRow).where(*_row(file)).values(unneeded_since=None))


def delete_unneeded(tx: Transaction, garbage: Sequence[OwnedFile]) -> int:
    """Deletes the rows of these files, if they still have the seen mark; returns how many were deleted.

    Bytes without an owner are then marked for deletion, with the time of that mark.
    """
    taken = 0
    for file in garbage:
        # The result of a DML statement has a row count.
        if tx.execute(delete(FileRow).where(*_row(file))).rowcount:  # type: ignore[attr-defined]
            taken += 1
            stored_use.add_file(tx, file.owner, -file.size, file.stored_by)
            assert file.since is not None, "only marked files are deleted"
            pending_deletes.mark_for_delete(tx, [file.digest], file.since)
    return taken


def delete_revisions(tx: Transaction, digests: Sequence[Digest]) -> int:
    """Deletes manifests that no adapter has and from which no version was made, with their measurements;
    returns how many.
    """
    gone = 0
    for digest in digests:
        is_left = delete(RevisionRow).where(
            col(RevisionRow.digest) == digest.hex, ~_is_parent(digest.hex), *_without_owner()
        )
        if tx.execute(is_left).rowcount:  # type: ignore[attr-defined]  # a DML result has it
            weight_measurements.delete_of_revision(tx, digest.hex)
            gone += 1
    return gone


def delete_derived_data(tx: Transaction, digests: Sequence[Digest]) -> None:
    """Deletes derived data and damage marks of deleted files."""
    for digest in digests:
        damage.clear_damage(tx, digest)
    gone = [digest.hex for digest in digests]
    tx.execute(delete(WeightsDigestRow).where(col(WeightsDigestRow.file_digest).in_(gone)))
    tx.execute(delete(InspectionRow).where(col(InspectionRow.file_digest).in_(gone)))


def named_files(tx: Transaction, owner: str) -> set[str]:
    """Every file named by a commit or version of the adapter, by its evidence, or by the base's weights.
    Raises `CorruptData`.
    """
    return set(_named(tx, owner))


def _named(tx: Transaction, owner: str) -> Iterator[str]:
    """Every file that a commit, version or evidence of the adapter, or the base's stored weights, name."""
    if owner.startswith("sha256:"):
        base = owner.removeprefix("sha256:")
        yield from tx.exec(select(BaseFileRow.digest).where(BaseFileRow.base_id == base))
        return
    adapter = select(AdapterRow.id).where(AdapterRow.name == owner).scalar_subquery()
    held = union(
        select(CommitRow.digest).where(CommitRow.adapter_id == adapter),
        select(VersionRow.digest).where(VersionRow.adapter_id == adapter),
    ).subquery()
    query = select(RevisionRow.digest, RevisionRow.manifest).join(
        held, held.c.digest == col(RevisionRow.digest)
    )
    for digest, data in tx.exec(query.execution_options(yield_per=200)):
        yield from (entry.sha256.hex for entry in stored_manifest(Digest(digest), data).files)
    yield from evidence.files_of_adapter(tx, owner)


def _without_owner() -> tuple[ColumnElement[bool], ...]:
    return (
        ~exists().where(col(CommitRow.digest) == col(RevisionRow.digest)),
        ~exists().where(col(VersionRow.digest) == col(RevisionRow.digest)),
    )


def _is_parent(digest: str) -> ColumnElement[bool]:
    return exists().where(
        col(TermRow.field) == "parent",
        col(TermRow.text) == f"sha256:{digest}",
        col(PostingRow.term_id) == col(TermRow.id),
    )


def _row(file: OwnedFile) -> tuple[ColumnElement[bool], ...]:
    """The condition for an unchanged row, including its mark."""
    since = col(FileRow.unneeded_since)
    is_as_seen = since.is_(None) if file.since is None else since == file.since
    return col(FileRow.owner) == file.owner, col(FileRow.digest) == file.digest.hex, is_as_seen
