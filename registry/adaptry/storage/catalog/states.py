"""States of versions in the catalog: changed with who, when and why, looked up by a revision's content."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from adaptry.core.digest import Digest
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.states import State
from adaptry.registry import records
from adaptry.registry.records import VersionInfo
from adaptry.storage.catalog import epochs, terms
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import WITHDRAWN_REVISION, Selection, statement
from adaptry.storage.catalog.version_info import info, infos, shown_columns
from adaptry.storage.catalog.versions import VersionRecord


def _withdrawn() -> Selection:
    return sa.select(*shown_columns()).join_from(tables.versions, tables.adapters).where(orm.WITHDRAWN)


def _carried() -> sa.ColumnElement[bool]:
    return (tables.commits.c.adapter_id == tables.versions.c.adapter_id) & (
        tables.commits.c.carries == tables.versions.c.number
    )


@statement
def of_revision() -> Selection:
    return (
        _withdrawn()
        .join(tables.commits, _carried())
        .where(
            tables.commits.c.adapter_id == sa.bindparam("adapter"),
            tables.commits.c.digest == sa.bindparam("digest"),
        )
        .limit(1)
    )


@statement
def _of_weights() -> Selection:
    return (
        _withdrawn()
        .where(
            tables.versions.c.weights == sa.bindparam("weights"),
            tables.adapters.c.namespace == sa.bindparam("namespace"),
            tables.adapters.c.deleted_at.is_(None),
        )
        .limit(1)
    )


def put(tx: Transaction, version: VersionRecord, change: records.StateChange, at: datetime, by: str) -> int:
    """Changes a version's state; returns its new generation."""
    row = tx.get_one(orm.VersionRow, version.key)
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
        _withdrawn()
        .join(tables.commits, _carried())
        .where(sa.tuple_(tables.commits.c.adapter_id, tables.commits.c.digest).in_(pairs))
        .add_columns(tables.commits.c.digest.label("revision"))
    )
    rows = tx.execute(statement).all()
    return {
        (row.adapter_id, Digest(row.revision)): version
        for row, version in zip(rows, infos(tx, rows), strict=True)
    }


def find_withdrawn_weights(tx: Transaction, namespace: str, weights: Digest) -> VersionInfo | None:
    """A withheld version of the namespace with these weights."""
    rows = run_select(tx, _of_weights, {"weights": weights.hex, "namespace": namespace})
    return info(tx, rows[0]) if rows else None


def withheld_numbers(tx: Transaction, adapter: AdapterRecord) -> dict[State, tuple[int, ...]]:
    """The adapter's versions whose files are withheld, by state."""
    query = (
        sa.select(tables.versions.c.state, tables.versions.c.number)
        .where(tables.versions.c.adapter_id == adapter.key, tables.versions.c.state.in_(WITHDRAWN))
        .order_by(tables.versions.c.number)
    )
    found: dict[State, tuple[int, ...]] = {}
    for state, number in tx.execute(query):
        found[state] = (*found.get(state, ()), number)
    return found
