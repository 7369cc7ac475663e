"""Rollouts in the catalog: one running for an alias at a time, the others as history."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import cast

from sqlmodel import col, select
from sqlmodel.sql.expression import Select

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.registry.rollouts import RolloutInfo, RolloutPlan, RolloutStage
from adaptry.registry.workers import ENDED
from adaptry.storage.catalog import epochs
from adaptry.storage.catalog.adapter_rows import visibility_of
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.aliases import AliasTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, ResidentRow, RolloutRow, VersionRow, WorkerRow
from adaptry.storage.catalog.versions import VersionRecord
from adaptry.storage.catalog.workers import is_lost, label_of

_SHOWN = 50


def begin(
    tx: Transaction,
    adapter: AdapterRecord,
    alias: str,
    to: VersionRecord,
    was: AliasTarget,
    plan: RolloutPlan,
    at: datetime,
    by: str,
) -> RolloutInfo:
    row = RolloutRow(
        adapter_id=adapter.key,
        alias=alias,
        version_id=to.key,
        was_number=was.number,
        was_digest=was.digest.hex,
        alias_generation=was.generation,
        steps=json.dumps(plan.whole),
        interval=plan.interval,
        started_at=at,
        started_by=by,
        step_at=at,
        generation=epochs.floor(tx) + 1,
    )
    tx.add(row)
    tx.flush()
    return _info(row, adapter.name, to.number, to.digest)


def running(tx: Transaction, adapter: AdapterRecord, alias: str) -> RolloutInfo | None:
    query = _query().where(
        RolloutRow.adapter_id == adapter.key, RolloutRow.alias == alias, RolloutRow.stage == "running"
    )
    found = tx.exec(query).first()
    return _info(found[0], adapter.name, found[1].number, Digest(found[1].digest)) if found else None


def of_adapter(tx: Transaction, adapter: AdapterRecord) -> tuple[RolloutInfo, ...]:
    """The latest rollouts, newest first."""
    query = _query().where(RolloutRow.adapter_id == adapter.key).order_by(col(RolloutRow.id).desc())
    return tuple(
        _info(row, adapter.name, version.number, Digest(version.digest))
        for row, version in tx.exec(query.limit(_SHOWN))
    )


def running_for_names(tx: Transaction, names: Iterable[str]) -> tuple[tuple[AdapterRecord, RolloutInfo], ...]:
    """The running rollouts of the names (`acme/tone@prod`) that a worker serves."""
    pairs = {tuple(name.split("@", 1)) for name in names if "@" in name}
    if not pairs:
        return ()
    query = (
        select(RolloutRow, VersionRow, AdapterRow)
        .join(VersionRow, col(RolloutRow.version_id) == col(VersionRow.id))
        .join(AdapterRow, col(RolloutRow.adapter_id) == col(AdapterRow.id))
        .where(RolloutRow.stage == "running", col(AdapterRow.name).in_({name for name, _ in pairs}))
    )
    return tuple(
        (
            AdapterRecord(row.adapter_id, AdapterName.parse(adapter.name), visibility_of(adapter.visibility)),
            _info(row, AdapterName.parse(adapter.name), version.number, Digest(version.digest)),
        )
        for row, version, adapter in tx.exec(query)
        if (adapter.name, row.alias) in pairs
    )


def change(
    tx: Transaction, rollout: RolloutInfo, *, step: int, stage: RolloutStage, reason: str | None, at: datetime
) -> None:
    """Moves a rollout to a step, or ends it."""
    row = tx.get_one(RolloutRow, rollout.id)
    row.step, row.stage, row.reason, row.step_at = step, stage, reason, at
    row.generation += 1
    row.ended_at = None if stage == "running" else at
    tx.flush()


def get(tx: Transaction, adapter: AdapterRecord, id: int) -> RolloutInfo:
    row, version = tx.exec(_query().where(RolloutRow.id == id)).one()
    return _info(row, adapter.name, version.number, Digest(version.digest))


def serving(tx: Transaction, rollout: RolloutInfo, now: datetime) -> Mapping[str, Digest | None]:
    """The version that each worker, by label, serves under the name of the rollout; None for one that is
    about to serve a version, or whose engine does not answer.

    A silent worker is left out, unless its last report has the rollout's version and nobody declared it gone:
    the version may be why it is silent, so no other worker takes its place.
    """
    query = (
        select(WorkerRow, ResidentRow.condition, VersionRow.digest)
        .join(ResidentRow, col(ResidentRow.worker_id) == col(WorkerRow.id))
        .join(VersionRow, col(ResidentRow.version_id) == col(VersionRow.id))
        .where(
            ResidentRow.served_as == f"{rollout.name}@{rollout.alias}",
            col(ResidentRow.condition).not_in(ENDED),
            col(WorkerRow.gone_at).is_(None),
        )
    )
    found: dict[str, Digest | None] = {}
    for worker, condition, digest in tx.exec(query):
        is_silent = is_lost(worker, now)
        if is_silent and digest != rollout.digest.hex:
            continue
        label = label_of(worker)
        found.setdefault(label, None)
        if condition == "serving" and worker.is_answering and not is_silent:
            found[label] = Digest(digest)
    return found


def _query() -> Select[RolloutRow, VersionRow]:
    return select(RolloutRow, VersionRow).join(VersionRow, col(RolloutRow.version_id) == col(VersionRow.id))


def _info(row: RolloutRow, name: AdapterName, number: int, digest: Digest) -> RolloutInfo:
    assert row.id is not None
    return RolloutInfo(
        id=row.id,
        name=name,
        alias=row.alias,
        number=number,
        digest=digest,
        was_number=row.was_number,
        was_digest=Digest(row.was_digest),
        alias_generation=row.alias_generation,
        steps=tuple(json.loads(row.steps)),
        step=row.step,
        interval=row.interval,
        stage=cast(RolloutStage, row.stage),
        reason=row.reason,
        generation=row.generation,
        started_at=row.started_at,
        started_by=row.started_by,
        step_at=row.step_at,
        ended_at=row.ended_at,
    )
