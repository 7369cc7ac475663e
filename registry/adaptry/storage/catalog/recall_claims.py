"""Recalls that a restored registry lacks: proved by a worker's signature, or found in the replaced
catalog.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.registry import records
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.version_info import Columns

if TYPE_CHECKING:
    from adaptry.registry.workers import ForgottenRecall


@statement
def _found() -> Selection:
    return sa.select(tables.recall_claims).where(
        tables.recall_claims.c.name == sa.bindparam("name"),
        tables.recall_claims.c.digest == sa.bindparam("digest"),
    )


def record_claim(
    tx: Transaction, name: AdapterName, digest: Digest, state: str, source: str, at: datetime
) -> bool:
    """Adds a claim; returns whether it is new."""
    if tx.get(orm.RecallClaimRow, (str(name), digest.hex)):
        return False
    tx.add(orm.RecallClaimRow(name=str(name), digest=digest.hex, state=state, source=source, at=at))
    tx.flush()
    return True


def find(tx: Reads, name: AdapterName, digest: Digest) -> ForgottenRecall | None:
    rows = run_select(tx, _found, {"name": str(name), "digest": digest.hex})
    return _claim(rows[0]) if rows else None


def all_claims(tx: Transaction) -> tuple[ForgottenRecall, ...]:
    """The claims in name order."""
    return tuple(map(_claim, tx.exec(sm.select(orm.RecallClaimRow).order_by(orm.RecallClaimRow.name))))


def quarantine(claim: ForgottenRecall) -> records.StateChange:
    """The state of a version whose recall was lost: quarantined until an administrator decides."""
    return records.StateChange(
        state="quarantined",
        reason=(
            f"{claim.state} before the registry was restored from a backup, as {claim.source} shows; revoke"
            " it again, or restore it if the recall was withdrawn"
        ),
    )


def _claim(row: orm.RecallClaimRow | Columns) -> ForgottenRecall:
    from adaptry.registry.workers import ForgottenRecall  # imports pydantic; claims are rare

    return ForgottenRecall(
        name=AdapterName.parse(row.name),
        digest=Digest(row.digest),
        state=row.state,
        source=row.source,
        at=row.at,
    )
