"""The values of the gauges that monitor a registry. Each query reads at most `maximum` rows by an index, or
counts.

The cost does not depend on the number of versions, which `stored_use` counts.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import extract, func
from sqlmodel import col, select

from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.quotas import QuotaLimits, QuotaSubject
from adaptry.registry.workers import ENDED
from adaptry.storage.catalog import quotas, stored_use
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import (
    AdapterRow,
    AliasRow,
    ResidentRow,
    RolloutRow,
    StoredUseRow,
    VersionRow,
    WorkerRow,
)


class MovedAlias(NamedTuple):
    """An alias, how often it has moved, and when last."""

    adapter: str
    alias: str
    generation: int
    moved_at: datetime


class OpenRollout(NamedTuple):
    """A running rollout and its current step."""

    adapter: str
    alias: str
    stage: str
    step: int


class GaugeValues(NamedTuple):
    """`loaded` is the number of workers by version digest; `used` is bytes and versions by name."""

    versions: int
    aliases: int
    moved_aliases: list[MovedAlias]
    loaded: list[tuple[str, int]]
    open_recalls: int
    rollouts: list[OpenRollout]
    used: list[tuple[QuotaSubject, int, int]]
    limits: list[tuple[QuotaSubject, QuotaLimits]]


def read(tx: Transaction, maximum: int) -> GaugeValues:
    """The current values, at most `maximum` of each kind."""
    versions = select(func.sum(StoredUseRow.versions)).where(StoredUseRow.scope == "namespace")
    aliases = select(func.count()).select_from(AliasRow).where(col(AliasRow.version_id).is_not(None))
    return GaugeValues(
        versions=int(tx.exec(versions).one() or 0),
        aliases=tx.exec(aliases).one(),
        moved_aliases=_moved_aliases(tx, maximum),
        loaded=_loaded(tx, maximum),
        open_recalls=_open_recalls(tx),
        rollouts=_rollouts(tx, maximum),
        used=stored_use.largest(tx, maximum),
        limits=list(quotas.every(tx).items())[:maximum],
    )


def _moved_aliases(tx: Transaction, maximum: int) -> list[MovedAlias]:
    query = (
        select(AdapterRow.name, AliasRow.alias, AliasRow.generation, AliasRow.moved_at)
        .join(AdapterRow, col(AdapterRow.id) == col(AliasRow.adapter_id))
        .where(col(AliasRow.version_id).is_not(None))
        .order_by(col(AliasRow.moved_at).desc())
        .limit(maximum)
    )
    return [MovedAlias(*row) for row in tx.exec(query)]


def _loaded(tx: Transaction, maximum: int) -> list[tuple[str, int]]:
    """The number of workers that serve each version. Only workers whose last report is valid and whose engine
    answers count. Ten thousand workers have as many rows, however many versions are stored.
    """
    workers = func.count(func.distinct(ResidentRow.worker_id))
    query = (
        select(VersionRow.digest, workers)
        .join(ResidentRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .join(WorkerRow, col(WorkerRow.id) == col(ResidentRow.worker_id))
        .where(
            col(ResidentRow.condition).in_(("serving", "draining")),
            col(WorkerRow.gone_at).is_(None),
            col(WorkerRow.is_answering),
            extract("epoch", col(WorkerRow.reported_at)) + col(WorkerRow.lease)
            >= datetime.now(UTC).timestamp(),
        )
        .group_by(VersionRow.digest)
        .order_by(workers.desc(), VersionRow.digest)
        .limit(maximum)
    )
    return [(f"sha256:{digest}", count) for digest, count in tx.exec(query)]


def _open_recalls(tx: Transaction) -> int:
    query = (
        select(func.count(func.distinct(ResidentRow.version_id)))
        .join(VersionRow, col(VersionRow.id) == col(ResidentRow.version_id))
        .join(WorkerRow, col(WorkerRow.id) == col(ResidentRow.worker_id))
        .where(
            col(ResidentRow.condition).not_in(ENDED),
            col(VersionRow.state).in_(WITHDRAWN),
            col(WorkerRow.gone_at).is_(None),
        )
    )
    return tx.exec(query).one()


def _rollouts(tx: Transaction, maximum: int) -> list[OpenRollout]:
    query = (
        select(AdapterRow.name, RolloutRow.alias, RolloutRow.stage, RolloutRow.step)
        .join(AdapterRow, col(AdapterRow.id) == col(RolloutRow.adapter_id))
        .where(col(RolloutRow.ended_at).is_(None))
        .order_by(col(RolloutRow.id).desc())
        .limit(maximum)
    )
    return [OpenRollout(*row) for row in tx.exec(query)]
