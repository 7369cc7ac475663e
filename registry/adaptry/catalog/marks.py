"""Branches and tags in the catalog: an adapter's names for commits, `main` among them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from sqlalchemy import func
from sqlmodel import col, select

from adaptry.catalog.adapters import Line
from adaptry.catalog.commits import Step
from adaptry.catalog.database import Transaction
from adaptry.catalog.rows import CommitRow, MarkRow
from adaptry.digest import Digest

Kind = Literal["branch", "tag"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A branch or tag, and the revision it is at."""

    name: str
    kind: Kind
    digest: Digest
    message: str


def find(tx: Transaction, line: Line, name: str) -> Mark | None:
    query = select(MarkRow, CommitRow.digest).join(CommitRow)
    found = tx.exec(query.where(MarkRow.adapter_id == line.key, MarkRow.name == name)).first()
    return _mark(*found) if found else None


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
    row = MarkRow(
        adapter_id=line.key,
        name=name,
        kind=kind,
        commit_id=to.key,
        message=message,
        set_at=at,
        set_by=by,
    )
    tx.merge(row)
    return _mark(row, to.digest.hex)


def drop(tx: Transaction, line: Line, name: str) -> None:
    """The mark must exist."""
    tx.delete(tx.get_one(MarkRow, (line.key, name)))


def _mark(row: MarkRow, digest: str) -> Mark:
    return Mark(row.name, cast(Kind, row.kind), Digest(digest), row.message)
