"""A version whose recall a restored registry had forgotten: held back, as if an administrator had quarantined it."""

from __future__ import annotations

from datetime import datetime

from adaptry.catalog import adapters, events, recall_claims, states, versions
from adaptry.catalog.database import Transaction
from adaptry.digest import Digest
from adaptry.lifecycle import WITHDRAWN
from adaptry.refs import AdapterName

BY = "adaptry"
"""By whom the version is held back: the registry, of which a worker or the replaced catalog has the proof."""


def hold_back(tx: Transaction, version: int, name: AdapterName, digest: Digest, now: datetime) -> bool:
    """Quarantines the version with that key, of which there must be a claim; False where it is withdrawn already."""
    claim, line, stored = (
        recall_claims.find(tx, name, digest),
        adapters.find(tx, name),
        versions.get(tx, version),
    )
    assert claim is not None and line is not None
    if stored.state in WITHDRAWN:
        return False
    change = recall_claims.quarantine(claim)
    generation = states.put(tx, stored, change, now, BY)
    detail = {"digest": digest, "was": stored.state, "reason": change.reason, "generation": generation}
    events.record(tx, "version.quarantined", at=now, by=BY, line=line, number=stored.number, detail=detail)
    return True
