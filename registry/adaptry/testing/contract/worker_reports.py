"""A worker's reports and their subjects: two versions, one of them live."""

from __future__ import annotations

from datetime import UTC, datetime

from adaptry.core.identity import Identity
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, StateChange, VersionInfo
from adaptry.registry.workers import (
    Condition,
    DroppedAdapter,
    ReportReply,
    ResidentReport,
    WorkerReport,
)
from adaptry.testing.contract.fixtures import TONE, MakeLora

GUS = Identity.with_role("gus", "worker", ("acme",))
MEG = Identity.with_role("meg", "worker", ("acme", "evil"))
PROD = "acme/tone@prod"
SINCE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def make_resident(
    version: VersionInfo, condition: Condition = "serving", served_as: str = PROD, reason: str | None = None
) -> ResidentReport:
    return ResidentReport(
        name=version.name,
        digest=version.digest,
        served_as=served_as,
        condition=condition,
        since=SINCE,
        reason=reason,
    )


def send_report(
    registry: Registry,
    *residents: ResidentReport,
    worker: str = "gpu-1",
    names: tuple[str, ...] = (PROD,),
    dropped: tuple[VersionInfo, ...] = (),
    lease: int = 600,
    last_event: int | None = None,
    engine_answers: bool = True,
) -> ReportReply:
    return registry.workers.report(
        WorkerReport(
            worker=worker,
            engine="vllm",
            version="0.33.0",
            base="org/tiny",
            slots=4,
            lease=lease,
            last_event=last_event,
            names=names,
            residents=residents if engine_answers else None,
            dropped=tuple(DroppedAdapter(name=one.name, digest=one.digest) for one in dropped),
        )
    )


def revoke(registry: Registry, version: VersionInfo) -> None:
    change = StateChange(state="revoked", reason="for a test")
    registry.versions.set_state(version.name, version.digest, change, version.state_generation)


def push_two(registry: Registry, lora: MakeLora) -> tuple[VersionInfo, VersionInfo]:
    """Pushes two versions of `acme/tone`, with `prod` pointing at the first."""
    first = push(registry, lora(1), TONE, options=PushOptions(alias="prod")).version
    return first, push(registry, lora(2), TONE).version
