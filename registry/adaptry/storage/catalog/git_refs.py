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
from adaptry.storage.catalog.adapters import Line
from adaptry.storage.catalog.commits import Step
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import CommitRow, MarkRow
from adaptry.storage.catalog.version_info import Columns, selected, table_of

Kind = Literal["branch", "tag"]

_MARKS, _COMMITS = table_of(MarkRow), table_of(CommitRow)
_FOUND = (
    select_columns(_MARKS.c.name, _MARKS.c.kind, _MARKS.c.message, _COMMITS.c.digest)
    .join_from(_MARKS, _COMMITS, _COMMITS.c.id == _MARKS.c.commit_id)
    .where(_MARKS.c.adapter_id == bindparam("adapter"), _MARKS.c.name == bindparam("name"))
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A branch or tag, and the revision it is at."""

    name: str
    kind: Kind
    digest: Digest
    message: str


def find(tx: Transaction, line: Line, name: str) -> Mark | None:
    found = selected(tx, _FOUND, {"adapter": line.key, "name": name})
    return _mark(found[0], found[0].digest) if found else None


def every(tx: Transaction, line: Line) -> tuple[Mark, ...]:
    """In name order."""
    query = select(MarkRow, CommitRow.digest).join(CommitRow).where(MarkRow.adapter_id == line.key)
    return tuple(_mark(*found) for found in tx.exec(query.order_by(MarkRow.name)))


def count(tx: Transaction, line: Line) -> int:
    return tx.exec(select(func.count()).where(col(MarkRow.adapter_id) == line.key)).one()


def put(
    tx: Transaction, line: Line, name: str, kind: Kind, to: Step, at: datetime, by: str, message: str = ""
) -> Mark:
    """Makes a mark or moves it."""
    row = tx.get(MarkRow, (line.key, name))
    if row is None:
        row = MarkRow(
            adapter_id=line.key,
            name=name,
            kind=kind,
            commit_id=to.key,
            set_at=at,
            set_by=by,
            folded=case_conflicts.fold(name),
        )
    row.kind, row.commit_id, row.message, row.set_at, row.set_by = kind, to.key, message, at, by
    tx.add(row)
    return _mark(row, to.digest.hex)


def drop(tx: Transaction, line: Line, name: str) -> None:
    """The mark must exist."""
    tx.delete(tx.get_one(MarkRow, (line.key, name)))
    tx.flush()
    case_conflicts.pass_on_mark(tx, line.key, name)


def _mark(row: MarkRow | Columns, digest: str) -> Mark:
    return Mark(row.name, cast(Kind, row.kind), Digest(digest), row.message)
