"""Branches and tags in the catalog: an adapter's names for commits, `main` among them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, cast

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog import case_conflicts
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.commits import CommitKey, CommitRecord
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import count_changed, insert_new
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.version_info import Columns

GitRefKind = Literal["branch", "tag"]


@statement
def _found() -> Selection:
    return (
        sa.select(tables.marks.c.name, tables.marks.c.kind, tables.marks.c.message, tables.commits.c.digest)
        .join_from(tables.marks, tables.commits, tables.commits.c.id == tables.marks.c.commit_id)
        .where(
            tables.marks.c.adapter_id == sa.bindparam("adapter"), tables.marks.c.name == sa.bindparam("name")
        )
    )


_MOVED = ("kind", "commit_id", "message", "set_at", "set_by")


@statement
def _move() -> sa.Update:
    return (
        tables.marks.update()
        .where(
            tables.marks.c.adapter_id == sa.bindparam("of_adapter"),
            tables.marks.c.name == sa.bindparam("of_name"),
        )
        .values({name: sa.bindparam(name) for name in _MOVED})
    )


@dataclass(frozen=True, slots=True)
class GitRef:
    """A branch or tag, and its revision."""

    name: str
    kind: GitRefKind
    digest: Digest
    message: str


def find(tx: Reads, adapter: AdapterRecord, name: str) -> GitRef | None:
    found = run_select(tx, _found, {"adapter": adapter.key, "name": name})
    return _record(found[0], found[0].digest) if found else None


def list_refs(tx: Transaction, adapter: AdapterRecord) -> tuple[GitRef, ...]:
    """The branches and tags of an adapter, in name order."""
    query = (
        sm.select(orm.GitRefRow, orm.CommitRow.digest)
        .join(orm.CommitRow)
        .where(orm.GitRefRow.adapter_id == adapter.key)
    )
    return tuple(_record(*found) for found in tx.exec(query.order_by(orm.GitRefRow.name)))


def owners_of(
    tx: Transaction, name: str, namespace: str, adapter: AdapterRecord | None, maximum: int
) -> tuple[tuple[str, GitRefKind, str], ...]:
    """Branches and tags with a name, ignoring case, in a namespace or of one of its adapters: the
    adapter's name, the kind, and the name as written.
    """
    row, of = orm.GitRefRow, orm.AdapterRow
    query = sm.select(of.name, row.kind, row.name).join(of, sm.col(of.id) == sm.col(row.adapter_id))
    folded = case_conflicts.fold(name)
    query = query.where(case_conflicts.is_same_folded(row.name, sm.col(row.folded), folded))
    query = query.where(sm.col(of.namespace) == namespace, sm.col(of.deleted_at).is_(None))
    if adapter is not None:
        query = query.where(sm.col(row.adapter_id) == adapter.key)
    found = tx.exec(query.order_by(sm.col(of.name)).limit(maximum))
    return tuple((owner, cast(GitRefKind, kind), written) for owner, kind, written in found)


def count(tx: Transaction, adapter: AdapterRecord) -> int:
    return tx.exec(sm.select(sa.func.count()).where(sm.col(orm.GitRefRow.adapter_id) == adapter.key)).one()


def put(
    tx: Transaction,
    adapter: AdapterRecord,
    name: str,
    kind: GitRefKind,
    to: CommitKey | CommitRecord,
    at: datetime,
    by: str,
    message: str = "",
) -> GitRef:
    """Creates the branch or tag, or moves it to the commit."""
    moved = {"kind": kind, "commit_id": to.key, "message": message, "set_at": at, "set_by": by}
    if not count_changed(tx, _move, {"of_adapter": adapter.key, "of_name": name, **moved}):
        key = {"adapter_id": adapter.key, "name": name, "folded": case_conflicts.fold(name)}
        insert_new(tx, "marks", {**key, **moved})
    return GitRef(name, kind, to.digest, message)


def delete(tx: Transaction, adapter: AdapterRecord, name: str) -> None:
    """Deletes a branch or tag, which must exist."""
    tx.delete(tx.get_one(orm.GitRefRow, (adapter.key, name)))
    tx.flush()
    case_conflicts.release_git_ref(tx, adapter.key, name)


def _record(row: orm.GitRefRow | Columns, digest: str) -> GitRef:
    return GitRef(row.name, cast(GitRefKind, row.kind), Digest(digest), row.message)
