"""Commits in the catalog: each commit points to its parent and never changes.

A chain is read from its newest commit backwards, a page at a time, so that an adapter with a million versions
costs no more than one with a few.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import EMPTY, Manifest
from adaptry.registry import commit_info, records
from adaptry.registry.commit_info import CommitNote
from adaptry.storage.catalog import cursors, damage, statement_texts
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, tables
from adaptry.storage.catalog.manifests import stored_manifest
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import insert_new
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.version_info import Columns

_FIRST = CommitNote(title="Created")


@statement
def _manifest() -> Selection:
    return sa.select(tables.revisions.c.manifest).where(tables.revisions.c.digest == sa.bindparam("digest"))


@dataclass(frozen=True, slots=True)
class CommitKey:
    """A commit in the catalog: its key and its revision."""

    key: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A commit in the catalog: its key, its revision and its columns."""

    key: int
    digest: Digest
    columns: Columns

    @property
    def info(self) -> commit_info.CommitInfo:
        """The commit's public information."""
        row = self.columns
        return commit_info.CommitInfo(
            digest=self.digest,
            branch=row.branch,
            parent=row.parent[:40] if row.parent else None,
            title=row.title,
            message=row.message,
            author=row.author,
            at=row.at,
            number=row.number,
            carries=row.number if row.number is not None else row.carries,
        )


def _shown() -> Selection:
    before = tables.commits.alias("before")
    return (
        sa.select(tables.commits, before.c.digest.label("parent"), tables.versions.c.number)
        .outerjoin_from(tables.commits, before, before.c.id == tables.commits.c.parent_id)
        .outerjoin(
            tables.versions,
            (tables.versions.c.adapter_id == tables.commits.c.adapter_id)
            & (tables.versions.c.digest == tables.commits.c.digest),
        )
    )


@statement
def _by_key() -> Selection:
    return _shown().where(tables.commits.c.id == sa.bindparam("key"))


@statement
def _by_ref() -> Selection:
    return (
        _shown()
        .join(tables.marks, tables.marks.c.commit_id == tables.commits.c.id)
        .where(
            tables.marks.c.adapter_id == sa.bindparam("adapter"), tables.marks.c.name == sa.bindparam("name")
        )
    )


def _of_adapter() -> sa.ColumnElement[bool]:
    return tables.commits.c.adapter_id == sa.bindparam("adapter")


@statement
def _by_prefix() -> Selection:
    return _shown().where(
        tables.commits.c.id.in_(
            sa.select(sa.func.min(tables.commits.c.id))
            .where(
                _of_adapter(),
                tables.commits.c.digest >= sa.bindparam("prefix"),
                tables.commits.c.digest < sa.bindparam("beyond"),
            )
            .group_by(tables.commits.c.digest)
            .limit(2)
            .correlate(None)
        )
    )


@statement
def tree_of_revision() -> Selection:
    return sa.select(tables.revisions.c.manifest).where(
        tables.revisions.c.digest == sa.bindparam("digest"),
        sa.exists().where(_of_adapter(), tables.commits.c.digest == sa.bindparam("digest")),
    )


@statement
def _page() -> Selection:
    commits = tables.commits
    start = sa.select(commits.c.id, commits.c.parent_id, sa.literal(1).label("place")).where(
        _of_adapter(), commits.c.id == sa.bindparam("key")
    )
    chain = start.cte("chain", recursive=True)
    chain = chain.union_all(
        sa.select(commits.c.id, commits.c.parent_id, chain.c.place + 1).where(
            commits.c.id == chain.c.parent_id, chain.c.place < sa.bindparam("many")
        )
    )
    return _shown().join(chain, chain.c.id == commits.c.id).order_by(chain.c.place)


def add_first(tx: Transaction, adapter: AdapterRecord, at: datetime, by: str) -> CommitRecord:
    """The first commit of a new adapter: a tree without files."""
    return add(tx, adapter, "main", EMPTY, _FIRST, None, at=at, by=by, parent=None)


def add(
    tx: Transaction,
    adapter: AdapterRecord,
    branch: str,
    manifest: Manifest,
    note: CommitNote,
    carries: int | None,
    *,
    at: datetime,
    by: str,
    parent: CommitRecord | None,
) -> CommitRecord:
    """Appends a commit; does not move the branch (`git_refs.put` does)."""
    return add_stored(
        tx, adapter, branch, store_revision(tx, manifest), note, carries, at=at, by=by, parent=parent
    )


def add_stored(
    tx: Transaction,
    adapter: AdapterRecord,
    branch: str,
    digest: Digest,
    note: CommitNote,
    carries: int | None,
    *,
    at: datetime,
    by: str,
    parent: CommitRecord | None,
) -> CommitRecord:
    """Like `add`, for a revision that is already stored."""
    added = insert(tx, adapter, branch, digest, note, carries, at=at, by=by, parent=parent)
    return _record(run_select(tx, _by_key, {"key": added.key})[0])


def insert(
    tx: Transaction,
    adapter: AdapterRecord,
    branch: str,
    digest: Digest,
    note: CommitNote,
    carries: int | None,
    *,
    at: datetime,
    by: str,
    parent: CommitRecord | None,
) -> CommitKey:
    """Like `add_stored`, without reading the new row."""
    values = {
        "adapter_id": adapter.key,
        "digest": digest.hex,
        "branch": branch,
        "parent_id": parent.key if parent else None,
        "title": note.title,
        "message": note.message,
        "author": by,
        "at": at,
        "carries": carries,
    }
    return CommitKey(insert_new(tx, "commits", values), digest)


def store_revision(tx: Transaction, manifest: Manifest) -> Digest:
    """Stores a manifest, byte for byte, once; returns its digest. If its row is damaged, this repairs it."""
    data = manifest.to_bytes()
    digest = Digest.of(data)
    stored = run_select(tx, _manifest, {"digest": digest.hex})
    if stored and stored[0].manifest == data:
        return digest
    if stored:
        tx.execute(
            sa.update(orm.RevisionRow).where(tables.revisions.c.digest == digest.hex).values(manifest=data)
        )
        damage.clear_damage(tx, digest)
    else:
        insert_new(tx, "revisions", {"digest": digest.hex, "manifest": data})
    return digest


def find_by_ref(tx: Reads, adapter: AdapterRecord, name: str) -> CommitRecord | None:
    """The commit of a branch or tag."""
    return _first(run_select(tx, _by_ref, {"adapter": adapter.key, "name": name}))


def find_by_digest(tx: Reads, adapter: AdapterRecord, prefix: str) -> CommitRecord | None:
    """The oldest commit of the revision whose digest begins with the prefix. Raises `Conflict` if several
    match.
    """
    asked = {"adapter": adapter.key, "prefix": prefix, "beyond": prefix + "g"}
    found = run_select(tx, _by_prefix, asked)
    if len(found) > 1:
        raise Conflict(f"{adapter.name} has several commits that begin with {prefix}; give more digits")
    return _first(found)


def tree(tx: Reads, adapter: AdapterRecord, digest: Digest) -> Manifest | None:
    """The tree of a revision with a commit of the adapter. Raises `CorruptData`."""
    found = run_select(tx, statement_texts.TREE, {"adapter": adapter.key, "digest": digest.hex})
    return stored_manifest(digest, found[0].manifest) if found else None


def trees(tx: Transaction, revisions: Collection[tuple[int, Digest]]) -> dict[tuple[int, Digest], Manifest]:
    """The trees of these revisions. Revisions of which the adapter with the given key has no commit are left
    out. Runs one statement. Raises `CorruptData`.
    """
    pairs = [(key, digest.hex) for key, digest in revisions]
    statement = (
        sa.select(tables.commits.c.adapter_id, tables.revisions.c.digest, tables.revisions.c.manifest)
        .join_from(tables.commits, tables.revisions, tables.revisions.c.digest == tables.commits.c.digest)
        .where(sa.tuple_(tables.commits.c.adapter_id, tables.commits.c.digest).in_(pairs))
        .distinct()
    )
    return {
        (row.adapter_id, (digest := Digest(row.digest))): stored_manifest(digest, row.manifest)
        for row in tx.execute(statement)
    }


def page(
    tx: Transaction, adapter: AdapterRecord, newest: CommitRecord, cursor: str | None, limit: int
) -> records.Page[commit_info.CommitInfo]:
    """A page of the chain from `newest` backwards, or from the cursor on."""
    about = f"commits {adapter.key}"
    start = cursors.decode_number(cursor, about)
    asked = {"adapter": adapter.key, "key": newest.key if start is None else start, "many": limit + 1}
    rows = run_select(tx, _page, asked)
    following = cursors.encode(rows[limit].id, about) if len(rows) > limit else None
    return records.Page[commit_info.CommitInfo](
        items=tuple(_record(row).info for row in rows[:limit]), next=following
    )


def _first(rows: Sequence[Columns]) -> CommitRecord | None:
    return _record(rows[0]) if rows else None


def _record(row: Columns) -> CommitRecord:
    return CommitRecord(row.id, Digest(row.digest), row)
