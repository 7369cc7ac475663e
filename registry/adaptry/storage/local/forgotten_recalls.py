"""Recalls that a restored backup lacks: the versions are quarantined until an administrator decides."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog import adapters, events, recall_claims, states, versions
from adaptry.storage.catalog.database import Catalog, Transaction

if TYPE_CHECKING:
    from adaptry.registry.workers import ForgottenRecall

ACTOR = "adaptry"
"""The author of the quarantine: the registry, by proof of a worker or of the replaced catalog."""


def forgotten_recalls(catalog: Catalog) -> tuple[ForgottenRecall, ...]:
    """Versions that were withdrawn before a restore, without a record in the backup. Raises `Unavailable`."""
    with catalog.read() as tx:
        return recall_claims.all_claims(tx)


def quarantine_forgotten(
    tx: Transaction, version: int, name: AdapterName, digest: Digest, now: datetime
) -> bool:
    """Quarantines the version with that key, which must have a claim; returns False if it is already
    withdrawn.
    """
    claim, adapter, stored = (
        recall_claims.find(tx, name, digest),
        adapters.find(tx, name),
        versions.get(tx, version),
    )
    assert claim is not None and adapter is not None
    if stored.state in WITHDRAWN:
        return False
    change = recall_claims.quarantine(claim)
    generation = states.put(tx, stored, change, now, ACTOR)
    detail = {"digest": digest, "was": stored.state, "reason": change.reason, "generation": generation}
    events.record(
        tx, "version.quarantined", at=now, by=ACTOR, adapter=adapter, number=stored.number, detail=detail
    )
    return True
