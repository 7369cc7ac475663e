"""Aliases in the catalog. A removed alias keeps its generation, so that generations are never reused."""

from __future__ import annotations

from datetime import datetime

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry import records
from adaptry.storage.catalog import case_conflicts, epochs, terms
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import change, insert_new
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.versions import VersionRecord


@statement
def _found() -> Selection:
    return (
        sa.select(
            tables.versions.c.id,
            tables.versions.c.number,
            tables.versions.c.digest,
            tables.aliases.c.generation,
        )
        .join_from(tables.aliases, tables.versions, tables.versions.c.id == tables.aliases.c.version_id)
        .where(
            tables.aliases.c.adapter_id == sa.bindparam("adapter"),
            tables.aliases.c.alias == sa.bindparam("alias"),
        )
    )


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """The target of an alias: a version's key, number and digest; and the alias's generation."""

    version: int
    number: int
    digest: Digest
    generation: int


def find(tx: Reads, adapter: AdapterRecord, alias: str) -> AliasTarget | None:
    """The alias's target; None if the alias does not exist or was removed."""
    rows = run_select(tx, _found, {"adapter": adapter.key, "alias": alias})
    if not rows:
        return None
    (found,) = rows
    return AliasTarget(found.id, found.number, Digest(found.digest), found.generation)


def set_target(
    tx: Transaction, adapter: AdapterRecord, alias: str, to: VersionRecord, at: datetime, by: str
) -> records.AliasInfo:
    """Creates or moves an alias, with a new generation."""
    key = {"of_adapter": adapter.key, "of_alias": alias}
    (found,) = run_select(tx, _stored, key) or (None,)
    moved = {"version_id": to.key, "moved_at": at, "moved_by": by}
    generation = (epochs.floor(tx) if found is None else found.generation) + 1
    if found is None:
        new = {"adapter_id": adapter.key, "alias": alias, "folded": case_conflicts.fold(alias)}
        insert_new(tx, "aliases", {**new, **moved, "generation": generation})
    else:
        folded = case_conflicts.fold(alias) if found.version_id is None else found.folded
        if found.version_id is not None:
            terms.remove(tx, found.version_id, ["alias"], alias)
        change(tx, _move, {**key, **moved, "generation": generation, "folded": folded})
    terms.add(tx, to.key, [("alias", alias)])
    return records.AliasInfo(
        alias=alias, number=to.number, digest=to.digest, generation=generation, moved_at=at, moved_by=by
    )


@statement
def _stored() -> Selection:
    """The stored row of an alias, even if the alias was removed."""
    aliases = tables.aliases
    return sa.select(aliases.c.version_id, aliases.c.generation, aliases.c.folded).where(
        aliases.c.adapter_id == sa.bindparam("of_adapter"), aliases.c.alias == sa.bindparam("of_alias")
    )


@statement
def _move() -> sa.Update:
    aliases = tables.aliases
    return (
        aliases.update()
        .where(
            aliases.c.adapter_id == sa.bindparam("of_adapter"), aliases.c.alias == sa.bindparam("of_alias")
        )
        .values(
            {
                name: sa.bindparam(name)
                for name in ("version_id", "moved_at", "moved_by", "generation", "folded")
            }
        )
    )


def remove(tx: Transaction, adapter: AdapterRecord, alias: str, at: datetime, by: str) -> None:
    """Removes an alias, which must exist."""
    row = tx.get_one(orm.AliasRow, (adapter.key, alias))
    assert row.version_id is not None
    terms.remove(tx, row.version_id, ["alias"], alias)
    row.version_id, row.moved_at, row.moved_by, row.folded = None, at, by, None
    tx.flush()
    case_conflicts.release_alias(tx, adapter.key, alias)


def infos(tx: Transaction, adapter: AdapterRecord, alias: str | None = None) -> tuple[records.AliasInfo, ...]:
    """An adapter's aliases in name order; with `alias`, only that one."""
    query = (
        sm.select(orm.AliasRow, orm.VersionRow)
        .join(orm.VersionRow, sm.col(orm.AliasRow.version_id) == sm.col(orm.VersionRow.id))
        .where(orm.AliasRow.adapter_id == adapter.key)
        .order_by(orm.AliasRow.alias)
    )
    if alias is not None:
        query = query.where(orm.AliasRow.alias == alias)
    return tuple(_info(row, version.number, Digest(version.digest)) for row, version in tx.exec(query))


def _info(row: orm.AliasRow, number: int, digest: Digest) -> records.AliasInfo:
    return records.AliasInfo(
        alias=row.alias,
        number=number,
        digest=digest,
        generation=row.generation,
        moved_at=row.moved_at,
        moved_by=row.moved_by,
    )
