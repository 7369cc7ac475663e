"""Rollouts: each against the events from its start on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

from sqlmodel import col, select

from adaptry.storage.catalog.audit.adapter_events import AdapterHistory, AuditedEvent
from adaptry.storage.catalog.audit.problem import IntegrityProblem, compare_values
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, RolloutRow, VersionRow

_STAGES = {
    "rollout.started": "running",
    "rollout.advanced": "running",
    "rollout.finished": "done",
    "rollout.stopped": "stopped",
    "rollout.aborted": "aborted",
}
_CLOSE = timedelta(minutes=1)
"""Maximum difference in seconds: an event and its row are written in one transaction, each with its own
time.
"""


def problems(tx: Transaction, row: AdapterRow, history: AdapterHistory) -> Iterator[IntegrityProblem]:
    rows = tx.exec(
        select(RolloutRow, VersionRow)
        .join(VersionRow, col(VersionRow.id) == col(RolloutRow.version_id))
        .where(RolloutRow.adapter_id == row.id)
        .order_by(col(RolloutRow.id))
    ).all()
    begun: list[list[AuditedEvent]] = []
    open_: dict[str, list[AuditedEvent]] = {}
    for one in history.of_kinds(*_STAGES):
        if one.kind == "rollout.started":
            open_[one.detail["alias"]] = []
            begun.append(open_[one.detail["alias"]])
        if one.detail["alias"] in open_:
            open_[one.detail["alias"]].append(one)
        else:
            yield IntegrityProblem(
                f"event {one.seq} of {row.name}", "it belongs to a rollout that was never started"
            )
    if len(rows) != len(begun):
        yield IntegrityProblem(
            row.name, f"it has {len(rows)} rollouts, but {len(begun)} events of their starts"
        )
        return
    for (rollout, version), happened in zip(rows, begun, strict=True):
        where = f"rollout {rollout.id} of {row.name}@{rollout.alias}"
        yield from _against(where, rollout, version, happened)
        yield from _against_alias(where, rollout, happened[0], history)


def _against(
    where: str, rollout: RolloutRow, version: VersionRow, happened: list[AuditedEvent]
) -> Iterator[IntegrityProblem]:
    first, last = happened[0], happened[-1]
    steps = json.loads(rollout.steps)
    pairs = (
        ("its alias", rollout.alias, last.detail["alias"]),
        ("its version", f"sha256:{version.digest}", last.detail["to"]),
        ("its number", version.number, last.row.number),
        ("the previous digest of the alias", f"sha256:{rollout.was_digest}", last.detail["was"]),
        ("the previous version of the alias", str(rollout.was_number), last.detail["was_number"]),
        ("its generation", rollout.generation, last.generation),
        ("its percentage", str(steps[rollout.step]), last.detail["percent"]),
        ("its stage", rollout.stage, _STAGES[last.kind]),
        ("its reason", rollout.reason, last.detail.get("reason")),
        ("its author", rollout.started_by, first.row.by),
    )
    for name, found, expected in pairs:
        yield from compare_values(where, name, found, expected, "its last event")
    for one in happened:
        named, own = (one.row.number, one.detail["to"]), (version.number, f"sha256:{version.digest}")
        yield from compare_values(f"event {one.seq} of {where}", "its version", named, own, "its rollout")
    percents = [int(one.detail["percent"]) for one in happened]
    if any(percent not in steps for percent in percents):
        yield IntegrityProblem(where, "its steps differ from those in its events")
    if abs(rollout.started_at - first.row.at) > _CLOSE or abs(rollout.step_at - last.row.at) > _CLOSE:
        yield IntegrityProblem(where, "its times differ from those of its events")
    ended = None if rollout.stage == "running" else rollout.step_at
    yield from compare_values(where, "its end time", rollout.ended_at, ended, "its stage")


def _against_alias(
    where: str, rollout: RolloutRow, first: AuditedEvent, history: AdapterHistory
) -> Iterator[IntegrityProblem]:
    moves = [
        one
        for one in history.of_kinds("alias.moved")
        if one.detail["alias"] == rollout.alias and one.seq < first.seq
    ]
    if moves:
        yield from compare_values(
            where,
            "the alias generation at its start",
            rollout.alias_generation,
            moves[-1].generation,
            "the alias's event",
        )
