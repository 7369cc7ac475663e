"""Limits in the catalog, by scope and name. There are as many as administrators have set."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, delete
from sqlalchemy import select as select_columns
from sqlmodel import col

from adaptry.core.quotas import EVERY, QuotaLimits, QuotaSubject
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import QuotaRow
from adaptry.storage.catalog.version_info import Columns, table_of

_QUOTAS = table_of(QuotaRow)
_FIND = select_columns(_QUOTAS).where(
    _QUOTAS.c.scope == bindparam("scope"), _QUOTAS.c.name.in_((bindparam("name"), bindparam("every")))
)
_EVERY = select_columns(_QUOTAS).order_by(_QUOTAS.c.scope, _QUOTAS.c.name)


def own(tx: Reads, subject: QuotaSubject) -> QuotaLimits | None:
    """The limits set for exactly this name; None if there are none."""
    return _by_name(tx, subject).get(subject.name)


def effective(tx: Reads, subject: QuotaSubject) -> QuotaLimits:
    """The limits set for the name, else those for every name."""
    found = _by_name(tx, subject)
    return found.get(subject.name, QuotaLimits()).or_else(found.get(EVERY, QuotaLimits()))


def every(tx: Reads) -> dict[QuotaSubject, QuotaLimits]:
    """All that are set, in order of scope and name."""
    return {QuotaSubject(row.scope, row.name): _limits(row) for row in run_select(tx, _EVERY, {})}


def put(tx: Transaction, subject: QuotaSubject, limits: QuotaLimits, at: datetime, by: str) -> None:
    """Sets these limits for a name, in place of those that were set."""
    tx.merge(
        QuotaRow(
            scope=subject.scope,
            name=subject.name,
            bytes=limits.bytes,
            versions=limits.versions,
            uploads=limits.uploads,
            requests=limits.requests,
            set_at=at,
            set_by=by,
        )
    )


def remove(tx: Transaction, subject: QuotaSubject) -> None:
    """Removes the limits of the name."""
    tx.execute(
        delete(QuotaRow).where(col(QuotaRow.scope) == subject.scope, col(QuotaRow.name) == subject.name)
    )


def _by_name(tx: Reads, subject: QuotaSubject) -> dict[str, QuotaLimits]:
    rows = run_select(tx, _FIND, {"scope": subject.scope, "name": subject.name, "every": EVERY})
    return {row.name: _limits(row) for row in rows}


def _limits(row: Columns) -> QuotaLimits:
    return QuotaLimits(row.bytes, row.versions, row.uploads, row.requests)
