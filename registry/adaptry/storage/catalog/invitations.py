"""Invitations in the catalog: by the hash of the code."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update
from sqlmodel import col, select

from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import InvitationRow


def insert(
    tx: Transaction, code_sha256: str, principal: int, now: datetime, by: str, expires_at: datetime
) -> None:
    row = InvitationRow(
        code_sha256=code_sha256, principal_id=principal, created_at=now, created_by=by, expires_at=expires_at
    )
    tx.add(row)
    tx.flush()


def take(tx: Transaction, code_sha256: str, now: datetime) -> int | None:
    """Ends an invitation that is valid, and returns its principal's number; None for any other."""
    found = tx.exec(
        select(InvitationRow).where(
            InvitationRow.code_sha256 == code_sha256, col(InvitationRow.ended_at).is_(None)
        )
    ).first()
    if found is None or found.expires_at <= now:
        return None
    found.ended_at = now
    tx.flush()
    return found.principal_id


def end_all(tx: Transaction, principal: int, now: datetime) -> None:
    """Ends every invitation that a principal has not used."""
    tx.execute(
        update(InvitationRow)
        .where(col(InvitationRow.principal_id) == principal, col(InvitationRow.ended_at).is_(None))
        .values(ended_at=now)
    )
