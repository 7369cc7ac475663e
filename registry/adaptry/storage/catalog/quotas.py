"""Limits in the catalog, by scope and name. There are as many as administrators have set."""

from __future__ import annotations

from datetime import datetime

from adaptry.core.quotas import EVERY, QuotaLimits, QuotaSubject
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.version_info import Columns


@statement
def _find() -> Selection:
    return sa.select(tables.quotas).where(
        tables.quotas.c.scope == sa.bindparam("scope"),
        tables.quotas.c.name.in_((sa.bindparam("name"), sa.bindparam("every"))),
    )


@statement
def _every() -> Selection:
    return sa.select(tables.quotas).order_by(tables.quotas.c.scope, tables.quotas.c.name)


def own(tx: Reads, subject: QuotaSubject) -> QuotaLimits | None:
    """The limits set for exactly this name, or None."""
    return _by_name(tx, subject).get(subject.name)


def effective(tx: Reads, subject: QuotaSubject) -> QuotaLimits:
    """The limits set for the name, else those for every name."""
    found = _by_name(tx, subject)
    return found.get(subject.name, QuotaLimits()).or_else(found.get(EVERY, QuotaLimits()))


def every(tx: Reads) -> dict[QuotaSubject, QuotaLimits]:
    """All limits that are set, in order of scope and name."""
    return {QuotaSubject(row.scope, row.name): _limits(row) for row in run_select(tx, _every, {})}


def put(tx: Transaction, subject: QuotaSubject, limits: QuotaLimits, at: datetime, by: str) -> None:
    """Sets these limits for a name, in place of those that were set."""
    tx.merge(
        orm.QuotaRow(
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
        sa.delete(orm.QuotaRow).where(
            sm.col(orm.QuotaRow.scope) == subject.scope, sm.col(orm.QuotaRow.name) == subject.name
        )
    )


def _by_name(tx: Reads, subject: QuotaSubject) -> dict[str, QuotaLimits]:
    rows = run_select(tx, _find, {"scope": subject.scope, "name": subject.name, "every": EVERY})
    return {row.name: _limits(row) for row in rows}


def _limits(row: Columns) -> QuotaLimits:
    return QuotaLimits(row.bytes, row.versions, row.uploads, row.requests)
