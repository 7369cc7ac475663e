"""Aliases in the catalog. A removed alias keeps its generation, so that generations are never reused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.registry.records import AliasInfo
from adaptry.storage.catalog import case_conflicts, epochs, terms
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.rows import AliasRow, VersionRow
from adaptry.storage.catalog.version_info import table_of
from adaptry.storage.catalog.versions import VersionRecord

_ALIASES, _VERSIONS = table_of(AliasRow), table_of(VersionRow)
_FOUND = (
    select_columns(_VERSIONS.c.id, _VERSIONS.c.number, _VERSIONS.c.digest, _ALIASES.c.generation)
    .join_from(_ALIASES, _VERSIONS, _VERSIONS.c.id == _ALIASES.c.version_id)
    .where(_ALIASES.c.adapter_id == bindparam("adapter"), _ALIASES.c.alias == bindparam("alias"))
)


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """The target of an alias: a version's key, number and digest; and the alias's generation."""

    version: int
    number: int
    digest: Digest
    generation: int


def find(tx: Reads, adapter: AdapterRecord, alias: str) -> AliasTarget | None:
    """None if the alias does not exist or was removed."""
    rows = run_select(tx, _FOUND, {"adapter": adapter.key, "alias": alias})
    if not rows:
        return None
    (found,) = rows
    return AliasTarget(found.id, found.number, Digest(found.digest), found.generation)


def set_target(
    tx: Transaction, adapter: AdapterRecord, alias: str, to: VersionRecord, at: datetime, by: str
) -> AliasInfo:
    """Creates or moves an alias, with a new generation."""
    row = tx.get(AliasRow, (adapter.key, alias))
    if row is None:
        row = AliasRow(
            adapter_id=adapter.key, alias=alias, generation=epochs.floor(tx), moved_at=at, moved_by=by
        )
    if row.version_id is not None:
        terms.remove(tx, row.version_id, ["alias"], alias)
    else:
        row.folded = case_conflicts.fold(alias)
    row.version_id, row.generation, row.moved_at, row.moved_by = to.key, row.generation + 1, at, by
    tx.add(row)
    tx.flush()
    terms.add(tx, to.key, [("alias", alias)])
    return _info(row, to.number, to.digest)


def remove(tx: Transaction, adapter: AdapterRecord, alias: str, at: datetime, by: str) -> None:
    """The alias must exist."""
    row = tx.get_one(AliasRow, (adapter.key, alias))
    assert row.version_id is not None
    terms.remove(tx, row.version_id, ["alias"], alias)
    row.version_id, row.moved_at, row.moved_by, row.folded = None, at, by, None
    tx.flush()
    case_conflicts.release_alias(tx, adapter.key, alias)


def infos(tx: Transaction, adapter: AdapterRecord) -> tuple[AliasInfo, ...]:
    """An adapter's aliases in name order."""
    query = (
        select(AliasRow, VersionRow)
        .join(VersionRow, col(AliasRow.version_id) == col(VersionRow.id))
        .where(AliasRow.adapter_id == adapter.key)
        .order_by(AliasRow.alias)
    )
    return tuple(_info(row, version.number, Digest(version.digest)) for row, version in tx.exec(query))


def _info(row: AliasRow, number: int, digest: Digest) -> AliasInfo:
    return AliasInfo(
        alias=row.alias,
        number=number,
        digest=digest,
        generation=row.generation,
        moved_at=row.moved_at,
        moved_by=row.moved_by,
    )
