"""Approvals of moves of aliases, and the decisions of those that were made, in the catalog."""

from __future__ import annotations

import json
from datetime import datetime

from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.core.gates.decision import PromotionDecision
from adaptry.core.refs import AdapterName
from adaptry.registry.policies import ApprovalInfo, PromotionInfo, PromotionRecord
from adaptry.registry.records import Page
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, AliasRow, ApprovalRow, PromotionRow, VersionRow
from adaptry.storage.catalog.versions import VersionRecord

_SHOWN = 200


def alias_generation(tx: Transaction, adapter: AdapterRecord, alias: str) -> int:
    """The generation of an alias, even of a removed one; 0 if it never existed."""
    row = tx.get(AliasRow, (adapter.key, alias))
    return row.generation if row else 0


def approve(
    tx: Transaction, adapter: AdapterRecord, alias: str, to: VersionRecord, at: datetime, by: str
) -> tuple[ApprovalInfo, bool]:
    """The approval, and whether it is new."""
    generation = alias_generation(tx, adapter, alias)
    row = tx.get(ApprovalRow, (adapter.key, alias, to.key, generation, by))
    is_new = row is None or row.withdrawn_at is not None
    if row is None:
        row = ApprovalRow(
            adapter_id=adapter.key,
            alias=alias,
            version_id=to.key,
            generation=generation,
            approved_by=by,
            approved_at=at,
        )
    elif row.withdrawn_at is not None:
        row.approved_at, row.withdrawn_at = at, None
    tx.add(row)
    tx.flush()
    return _approval(row, adapter, to.number, to.digest, generation), is_new


def withdraw_approval(
    tx: Transaction, adapter: AdapterRecord, alias: str, to: VersionRecord, at: datetime, by: str
) -> ApprovalInfo | None:
    """The approval that was withdrawn; None if it was not in force."""
    generation = alias_generation(tx, adapter, alias)
    row = tx.get(ApprovalRow, (adapter.key, alias, to.key, generation, by))
    if row is None or row.withdrawn_at is not None:
        return None
    row.withdrawn_at = at
    tx.add(row)
    tx.flush()
    return _approval(row, adapter, to.number, to.digest, generation)


def approvers(tx: Transaction, adapter: AdapterRecord, alias: str, to: VersionRecord) -> tuple[str, ...]:
    """The principals who approve the move of an alias from its current version to another, by name."""
    query = select(ApprovalRow.approved_by).where(
        ApprovalRow.adapter_id == adapter.key,
        ApprovalRow.alias == alias,
        ApprovalRow.version_id == to.key,
        ApprovalRow.generation == alias_generation(tx, adapter, alias),
        col(ApprovalRow.withdrawn_at).is_(None),
    )
    return tuple(sorted(tx.exec(query)))


def approvals(tx: Transaction, adapter: AdapterRecord, alias: str) -> tuple[ApprovalInfo, ...]:
    """The latest approvals for an alias, newest first."""
    query = (
        select(ApprovalRow, VersionRow)
        .join(VersionRow, col(VersionRow.id) == col(ApprovalRow.version_id))
        .where(ApprovalRow.adapter_id == adapter.key, ApprovalRow.alias == alias)
        .order_by(col(ApprovalRow.approved_at).desc(), ApprovalRow.approved_by)
        .limit(_SHOWN)
    )
    generation = alias_generation(tx, adapter, alias)
    return tuple(
        _approval(row, adapter, version.number, Digest(version.digest), generation)
        for row, version in tx.exec(query)
    )


def record(
    tx: Transaction, adapter: AdapterRecord, decision: PromotionDecision, generation: int
) -> tuple[int, Digest]:
    """Stores the decision of a move that gave the alias this generation; returns its number, and the digest
    of the record.
    """
    content = decision.content
    digest = Digest.of(content)
    row = PromotionRow(
        adapter_id=adapter.key,
        alias=decision.alias,
        generation=generation,
        record_digest=digest.hex,
        record=content.decode(),
    )
    tx.add(row)
    tx.flush()
    assert row.id is not None
    return row.id, digest


def page(
    tx: Transaction, adapter: AdapterRecord, alias: str | None, cursor: str | None, limit: int
) -> Page[PromotionInfo]:
    """A page of promotions, newest first."""
    about = f"promotions {adapter.key} {alias!r}"
    before = cursors.decode_number(cursor, about, cursors.BIG_INTEGER)
    query = select(PromotionRow).where(PromotionRow.adapter_id == adapter.key)
    if alias is not None:
        query = query.where(PromotionRow.alias == alias)
    if before is not None:
        query = query.where(col(PromotionRow.id) < before)
    rows = tx.exec(query.order_by(col(PromotionRow.id).desc()).limit(limit + 1)).all()
    items = tuple(_info(row, adapter.name) for row in rows[:limit])
    following = cursors.encode(items[-1].id, about) if len(rows) > limit else None
    return Page[PromotionInfo](items=items, next=following)


def find(tx: Transaction, id: int) -> PromotionRecord | None:
    """The promotion with this number, with the adapter's current name."""
    if not 0 < id <= cursors.BIG_INTEGER:
        return None
    row = tx.get(PromotionRow, id)
    adapter = tx.get(AdapterRow, row.adapter_id) if row else None
    if row is None or adapter is None or adapter.deleted_at is not None:
        return None
    decision = PromotionDecision.model_validate_json(row.record)
    info = _info(row, AdapterName.parse(adapter.name))
    return PromotionRecord.model_validate({**info.model_dump(), "decision": decision})


def _info(row: PromotionRow, name: AdapterName) -> PromotionInfo:
    decided = json.loads(row.record)
    fields = ("alias", "number", "digest", "verdict", "reason", "at", "by")
    return PromotionInfo.model_validate(
        {
            "id": row.id,
            "name": name,
            "generation": row.generation,
            "record": Digest(row.record_digest),
            **{field: decided[field] for field in fields},
        }
    )


def _approval(
    row: ApprovalRow, adapter: AdapterRecord, number: int, digest: Digest, generation: int
) -> ApprovalInfo:
    return ApprovalInfo(
        name=adapter.name,
        alias=row.alias,
        number=number,
        digest=digest,
        generation=row.generation,
        by=row.approved_by,
        at=row.approved_at,
        withdrawn_at=row.withdrawn_at,
        is_void=row.generation != generation or row.withdrawn_at is not None,
    )
