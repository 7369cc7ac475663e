"""Decisions on moves against events: the event of each move has the digest of the decision's record."""

from __future__ import annotations

from collections.abc import Iterator

from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.gates.decision import PromotionDecision
from adaptry.storage.catalog.audit.adapter_events import AdapterHistory
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, PromotionRow


def problems(tx: Transaction, row: AdapterRow, history: AdapterHistory) -> Iterator[IntegrityProblem]:
    recorded = {
        (one.detail["alias"], int(one.detail["generation"]), one.detail["record"])
        for one in history.of_kinds("alias.moved")
        if "record" in one.detail
    }
    seen = set()
    query = select(PromotionRow).where(PromotionRow.adapter_id == row.id).order_by(col(PromotionRow.id))
    for one in tx.exec(query):
        what = f"decision {one.id} of {row.name}@{one.alias}"
        digest = Digest.of(one.record.encode())
        if digest.hex != one.record_digest:
            yield IntegrityProblem(what, "its record has changed since it was made")
        elif not _is_of(one.record, one.alias):
            yield IntegrityProblem(what, "its record is not one of a move of this alias")
        key = one.alias, one.generation, f"sha256:{one.record_digest}"
        seen.add(key)
        if key not in recorded:
            yield IntegrityProblem(what, "no event of a move agrees with it")
    for alias, generation, record in sorted(recorded - seen):
        yield IntegrityProblem(
            f"{row.name}@{alias}", f"the decision of move {generation} ({record[:19]}…) is missing"
        )


def _is_of(record: str, alias: str) -> bool:
    try:
        return PromotionDecision.model_validate_json(record).alias == alias
    except (ValueError, AdaptryError):
        return False
