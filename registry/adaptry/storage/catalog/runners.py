"""Runners in the catalog, and their heartbeat counts, which show that they are alive.

No clocks are compared: an observer considers a runner dead after its count has not changed for long enough.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from sqlmodel import col, select

from adaptry.registry.job_types.records import RunnerInfo
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.encoding import decode_list, encode_list
from adaptry.storage.catalog.rows import RunnerRow


def beat(tx: Transaction, runner: RunnerInfo) -> None:
    """Increases the runner's count; a runner that was considered dead is listed again."""
    row = tx.get(RunnerRow, runner.id) or RunnerRow(
        id=runner.id,
        host=runner.host or "",
        devices=encode_list(runner.devices),
        tags=encode_list(runner.tags),
        concurrency=runner.concurrency,
        memory=runner.memory,
        seen_at=runner.seen_at,
    )
    row.beats, row.seen_at = row.beats + 1, runner.seen_at
    tx.add(row)


def beats(tx: Transaction) -> dict[str, int]:
    """The count of each runner."""
    return {row.id: row.beats for row in tx.exec(select(RunnerRow))}


def delete(tx: Transaction, ids: Iterable[str]) -> None:
    tx.execute(sa.delete(RunnerRow).where(col(RunnerRow.id).in_(list(ids))))


def every(tx: Transaction) -> tuple[RunnerInfo, ...]:
    rows = tx.exec(select(RunnerRow).order_by(RunnerRow.id)).all()
    return tuple(
        RunnerInfo(
            id=row.id,
            host=row.host,
            devices=decode_list(row.devices),
            tags=decode_list(row.tags),
            concurrency=row.concurrency,
            memory=row.memory,
            seen_at=row.seen_at,
        )
        for row in rows
    )
