"""How far a recall has come: for every worker that ever had a version, whether it may still answer.

A worker counts as clean when it has said that it dropped the version (files removed, engine refuses it), and
only then: one that has unloaded it may load it again as long as the files are there, and of one that is lost
nobody knows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry.registry.records import Value, VersionInfo
from adaptry.registry.workers import ResidentInfo

RecallOutcome = Literal["dropped", "unloaded", "serving", "lost"]


class WorkerRecallStatus(Value):
    """A worker and a name, and what became of the version there. `at`: since when, as far as known."""

    worker: str
    owner: str = ""
    served_as: str
    outcome: RecallOutcome
    at: datetime

    @property
    def is_clean(self) -> bool:
        return self.outcome == "dropped"


class RecallStatus(Value):
    """A version, and who has or had it. `is_recalled` is False where nobody was asked to drop it."""

    version: VersionInfo
    is_recalled: bool
    is_complete: bool
    lines: tuple[WorkerRecallStatus, ...]


def recall_status(registry: Registry, ref: Ref) -> RecallStatus:
    """Raises `NotFound`."""
    version = registry.versions.get(ref)
    lines = tuple(map(_line, registry.workers.residents(ref)))
    is_recalled = version.state in WITHDRAWN
    return RecallStatus(
        version=version,
        is_recalled=is_recalled,
        is_complete=is_recalled and all(line.is_clean for line in lines),
        lines=lines,
    )


def _line(resident: ResidentInfo) -> WorkerRecallStatus:
    outcome, at = _outcome(resident)
    return WorkerRecallStatus(
        worker=resident.worker, owner=resident.owner, served_as=resident.served_as, outcome=outcome, at=at
    )


def _outcome(resident: ResidentInfo) -> tuple[RecallOutcome, datetime]:
    if resident.dropped_at is not None:
        return "dropped", resident.dropped_at
    if resident.is_lost:
        return "lost", resident.ended_at or resident.since
    if resident.may_be_served:
        return "serving", resident.since
    return "unloaded", resident.ended_at or resident.since
