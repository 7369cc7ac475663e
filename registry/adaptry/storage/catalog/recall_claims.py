"""Recalls a restored registry lacks: proved by a worker's signature, or found in the replaced catalog."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import select

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.registry.records import StateChange
from adaptry.registry.workers import ForgottenRecall
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import RecallClaimRow


def record_claim(
    tx: Transaction, name: AdapterName, digest: Digest, state: str, source: str, at: datetime
) -> bool:
    """Whether this is new."""
    if tx.get(RecallClaimRow, (str(name), digest.hex)):
        return False
    tx.add(RecallClaimRow(name=str(name), digest=digest.hex, state=state, source=source, at=at))
    tx.flush()
    return True


def find(tx: Transaction, name: AdapterName, digest: Digest) -> ForgottenRecall | None:
    row = tx.get(RecallClaimRow, (str(name), digest.hex))
    return _claim(row) if row else None


def all_claims(tx: Transaction) -> tuple[ForgottenRecall, ...]:
    """In the order of names."""
    return tuple(map(_claim, tx.exec(select(RecallClaimRow).order_by(RecallClaimRow.name))))


def quarantine(claim: ForgottenRecall) -> StateChange:
    """What becomes of a version whose recall was forgotten: held back until an administrator has decided."""
    return StateChange(
        state="quarantined",
        reason=(
            f"{claim.state} before the registry was restored from a backup, as {claim.source} shows; revoke"
            " it again, or restore it if the recall was taken back"
        ),
    )


def _claim(row: RecallClaimRow) -> ForgottenRecall:
    return ForgottenRecall(
        name=AdapterName.parse(row.name),
        digest=Digest(row.digest),
        state=row.state,
        source=row.source,
        at=row.at,
    )
