"""The status of a recall: for every worker that ever had a version, whether it may still serve it.

A worker counts as having dropped the version only after it has proved this (files removed, engine refuses
it). A worker that has only unloaded it may load it again while the files exist. The state is unknown while
the worker does not report, or its engine does not answer. A worker that a person declared gone no longer
keeps the recall open, but proves nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry.registry.records import Value, VersionInfo
from adaptry.registry.workers import Condition, GoneDeclaration, ResidentInfo

RecallOutcome = Literal["dropped", "unloaded", "serving", "unknown", "gone"]


class WorkerRecallStatus(Value):
    """The outcome of a recall for a worker and a name; `at` is the time since which it holds, if known.

    `last` is the worker's last report about the version, at `reported_at` or, if its engine is not answering,
    earlier; `gone` is set for the outcome `gone`.
    """

    worker: str
    owner: str = ""
    served_as: str
    outcome: RecallOutcome
    at: datetime
    last: Condition = "serving"
    reported_at: datetime | None = None
    is_answering: bool = True
    gone: GoneDeclaration | None = None

    @property
    def is_proved(self) -> bool:
        """Whether the worker has proved that it dropped the version."""
        return self.outcome == "dropped"

    @property
    def is_closed(self) -> bool:
        """Whether the recall no longer waits for this worker: it dropped the version or was declared gone."""
        return self.outcome in ("dropped", "gone")


class RecallStatus(Value):
    """A version, and the workers that have or had it. `is_recalled` is False if it was not recalled.

    `is_complete`: no worker may still serve it, according to workers' proofs and people's declarations.
    """

    version: VersionInfo
    is_recalled: bool
    is_complete: bool
    lines: tuple[WorkerRecallStatus, ...]


class RecallProgress(Value):
    """The counts of a recall, which may concern thousands of workers, and its first lines: workers that may
    serve the version come first, those that are closed come last.
    """

    version: VersionInfo
    is_complete: bool
    total: int
    closed: int
    lines: tuple[WorkerRecallStatus, ...]


def recall_progress(registry: Registry, version: VersionInfo, limit: int) -> RecallProgress:
    """The progress of the recall of a withdrawn version, with at most `limit` lines. Raises `NotFound`."""
    found = registry.workers.resident_summary(version.revision_ref, limit)
    return RecallProgress(
        version=version,
        is_complete=found.closed == found.total,
        total=found.total,
        closed=found.closed,
        lines=tuple(map(_line, found.first)),
    )


def recall_status(registry: Registry, ref: Ref) -> RecallStatus:
    """The status of a version's recall on every worker. Raises `NotFound`."""
    version = registry.versions.get(ref)
    lines = tuple(map(_line, registry.workers.residents(ref)))
    is_recalled = version.state in WITHDRAWN
    return RecallStatus(
        version=version,
        is_recalled=is_recalled,
        is_complete=is_recalled and all(line.is_closed for line in lines),
        lines=lines,
    )


def _line(resident: ResidentInfo) -> WorkerRecallStatus:
    outcome, at = _outcome(resident)
    return WorkerRecallStatus(
        worker=resident.worker,
        owner=resident.owner,
        served_as=resident.served_as,
        outcome=outcome,
        at=at,
        last=resident.condition,
        reported_at=resident.reported_at,
        is_answering=resident.is_answering,
        gone=resident.gone if outcome == "gone" else None,
    )


def _outcome(resident: ResidentInfo) -> tuple[RecallOutcome, datetime]:
    if resident.dropped_at is not None:
        return "dropped", resident.dropped_at
    if resident.gone is not None:
        return "gone", resident.gone.at
    if resident.is_lost:
        return "unknown", resident.reported_at or resident.ended_at or resident.since
    if not resident.is_answering:
        return "unknown", resident.ended_at or resident.since
    if resident.may_be_served:
        return "serving", resident.since
    return "unloaded", resident.ended_at or resident.since
