"""States of versions in the catalog: changed with who, when and why, looked up by a revision's content."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import bindparam, select, tuple_

from adaptry.core.digest import Digest
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.storage.catalog import epochs, terms
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import WITHDRAWN, AdapterRow, CommitRow, VersionRow
from adaptry.storage.catalog.statement_texts import WITHDRAWN_REVISION
from adaptry.storage.catalog.version_info import SHOWN, info, infos, table_of
from adaptry.storage.catalog.versions import VersionRecord

_ADAPTERS, _VERSIONS, _COMMITS = table_of(AdapterRow), table_of(VersionRow), table_of(CommitRow)
_WITHDRAWN = select(*SHOWN).join_from(_VERSIONS, _ADAPTERS).where(WITHDRAWN)
_CARRIED = (_COMMITS.c.adapter_id == _VERSIONS.c.adapter_id) & (_COMMITS.c.carries == _VERSIONS.c.number)
OF_REVISION = (
    _WITHDRAWN.join(_COMMITS, _CARRIED)
    .where(_COMMITS.c.adapter_id == bindparam("adapter"), _COMMITS.c.digest == bindparam("digest"))
    .limit(1)
)
_OF_WEIGHTS = _WITHDRAWN.where(
    _VERSIONS.c.weights == bindparam("weights"), _ADAPTERS.c.namespace == bindparam("namespace")
).limit(1)


def put(tx: Transaction, version: VersionRecord, change: StateChange, at: datetime, by: str) -> int:
    """Changes a version's state; returns its new generation."""
    row = tx.get_one(VersionRow, version.key)
    row.state, row.state_reason, row.state_successor = change.state, change.reason, change.successor
    row.state_generation, row.state_at, row.state_by = max(row.state_generation, epochs.floor(tx)) + 1, at, by
    tx.flush()
    terms.remove(tx, version.key, ["state"])
    terms.add(tx, version.key, [("state", change.state)])
    return row.state_generation


def find_withdrawn_revision(tx: Reads, adapter: AdapterRecord, revision: Digest) -> VersionInfo | None:
    """A withheld version with the same weights as this revision."""
    rows = run_select(tx, WITHDRAWN_REVISION, {"adapter": adapter.key, "digest": revision.hex})
    return info(tx, rows[0]) if rows else None


def find_withdrawn_revisions(
    tx: Transaction, revisions: Collection[tuple[int, Digest]]
) -> dict[tuple[int, Digest], VersionInfo]:
    """The states of several revisions, each of the adapter with that key, in two statements."""
    pairs = [(key, digest.hex) for key, digest in revisions]
    statement = (
        _WITHDRAWN.join(_COMMITS, _CARRIED)
        .where(tuple_(_COMMITS.c.adapter_id, _COMMITS.c.digest).in_(pairs))
        .add_columns(_COMMITS.c.digest.label("revision"))
    )
    rows = tx.execute(statement).all()
    return {
        (row.adapter_id, Digest(row.revision)): version
        for row, version in zip(rows, infos(tx, rows), strict=True)
    }


def find_withdrawn_weights(tx: Transaction, namespace: str, weights: Digest) -> VersionInfo | None:
    """A withheld version of the namespace with these weights."""
    rows = run_select(tx, _OF_WEIGHTS, {"weights": weights.hex, "namespace": namespace})
    return info(tx, rows[0]) if rows else None
