"""Branches and tags in the catalog: an adapter's names for commits, `main` among them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import bindparam, func
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.storage.catalog import case_conflicts
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.commits import CommitRecord
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import change, insert_new
from adaptry.storage.catalog.rows import CommitRow, MarkRow
from adaptry.storage.catalog.version_info import Columns, table_of

GitRefKind = Literal["branch", "tag"]

_MARKS, _COMMITS = table_of(MarkRow), table_of(CommitRow)
_FOUND = (
    select_columns(_MARKS.c.name, _MARKS.c.kind, _MARKS.c.message, _COMMITS.c.digest)
    .join_from(_MARKS, _COMMITS, _COMMITS.c.id == _MARKS.c.commit_id)
    .where(_MARKS.c.adapter_id == bindparam("adapter"), _MARKS.c.name == bindparam("name"))
)
_MOVED = ("kind", "commit_id", "message", "set_at", "set_by")
_MOVE = (
    _MARKS.update()
    .where(_MARKS.c.adapter_id == bindparam("of_adapter"), _MARKS.c.name == bindparam("of_name"))
    .values({name: bindparam(name) for name in _MOVED})
)


@dataclass(frozen=True, slots=True)
class GitRef:
    """A branch or tag, and its revision."""

    name: str
    kind: GitRefKind
    digest: Digest
    message: str


def find(tx: Reads, adapter: AdapterRecord, name: str) -> GitRef | None:
    found = run_select(tx, _FOUND, {"adapter": adapter.key, "name": name})
    return _record(found[0], found[0].digest) if found else None


def list_refs(tx: Transaction, adapter: AdapterRecord) -> tuple[GitRef, ...]:
    """In name order."""
    query = select(MarkRow, CommitRow.digest).join(CommitRow).where(MarkRow.adapter_id == adapter.key)
    return tuple(_record(*found) for found in tx.exec(query.order_by(MarkRow.name)))


def count(tx: Transaction, adapter: AdapterRecord) -> int:
    return tx.exec(select(func.count()).where(col(MarkRow.adapter_id) == adapter.key)).one()


def put(
    tx: Transaction,
    adapter: AdapterRecord,
    name: str,
    kind: GitRefKind,
    to: CommitRecord,
    at: datetime,
    by: str,
    message: str = "",
) -> GitRef:
    """Creates the branch or tag, or moves it to the commit."""
    moved = {"kind": kind, "commit_id": to.key, "message": message, "set_at": at, "set_by": by}
    if not change(tx, _MOVE, {"of_adapter": adapter.key, "of_name": name, **moved}):
        key = {"adapter_id": adapter.key, "name": name, "folded": case_conflicts.fold(name)}
        insert_new(tx, MarkRow, {**key, **moved})
    return GitRef(name, kind, to.digest, message)


def drop(tx: Transaction, adapter: AdapterRecord, name: str) -> None:
    """Deletes a branch or tag, which must exist."""
    tx.delete(tx.get_one(MarkRow, (adapter.key, name)))
    tx.flush()
    case_conflicts.release_git_ref(tx, adapter.key, name)


def _record(row: MarkRow | Columns, digest: str) -> GitRef:
    return GitRef(row.name, cast(GitRefKind, row.kind), Digest(digest), row.message)
