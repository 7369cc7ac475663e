"""Recalls that a restored registry lacks: proved by a worker's signature, or found in the replaced
catalog.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam
from sqlalchemy import select as select_columns
from sqlmodel import select

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.registry.records import StateChange
from adaptry.registry.workers import ForgottenRecall
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import RecallClaimRow
from adaptry.storage.catalog.version_info import Columns, table_of

_CLAIMS = table_of(RecallClaimRow)
_FOUND = select_columns(_CLAIMS).where(
    _CLAIMS.c.name == bindparam("name"), _CLAIMS.c.digest == bindparam("digest")
)


def record_claim(
    tx: Transaction, name: AdapterName, digest: Digest, state: str, source: str, at: datetime
) -> bool:
    """Adds a claim; returns whether it is new."""
    if tx.get(RecallClaimRow, (str(name), digest.hex)):
        return False
    tx.add(RecallClaimRow(name=str(name), digest=digest.hex, state=state, source=source, at=at))
    tx.flush()
    return True


def find(tx: Reads, name: AdapterName, digest: Digest) -> ForgottenRecall | None:
    rows = run_select(tx, _FOUND, {"name": str(name), "digest": digest.hex})
    return _claim(rows[0]) if rows else None


def all_claims(tx: Transaction) -> tuple[ForgottenRecall, ...]:
    """The claims in name order."""
    return tuple(map(_claim, tx.exec(select(RecallClaimRow).order_by(RecallClaimRow.name))))


def quarantine(claim: ForgottenRecall) -> StateChange:
    """The state of a version whose recall was lost: quarantined until an administrator decides."""
    return StateChange(
        state="quarantined",
        reason=(
            f"{claim.state} before the registry was restored from a backup, as {claim.source} shows; revoke"
            " it again, or restore it if the recall was taken back"
        ),
    )


def _claim(row: RecallClaimRow | Columns) -> ForgottenRecall:
    return ForgottenRecall(
        name=AdapterName.parse(row.name),
        digest=Digest(row.digest),
        state=row.state,
        source=row.source,
        at=row.at,
    )
