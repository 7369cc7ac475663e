"""Version snapshots: everything that is copied with a version between registries, except its files.

Content, manifest, digests and lineage stay identical. Authors and times are not copied: in the destination,
the account that applies the snapshot is recorded as the author.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from adaptry.core.digest import Digest
from adaptry.core.lifecycle import State
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry.registry.records import MetricName, Tag, Value, VersionInfo

MetricValue = tuple[MetricName, Annotated[float, Field(allow_inf_nan=False)]]
"""A metric and one of its values."""


class VersionSnapshot(Value, extra="forbid"):
    """A version's metadata. `metrics`: all values logged, oldest first; `aliases`: those that point at it."""

    name: AdapterName
    number: int = Field(ge=1, le=1_000_000_000)
    digest: Digest
    state: State = "active"
    reason: str | None = Field(default=None, max_length=1024)
    successor: str | None = Field(default=None, max_length=256)
    forced: str | None = Field(default=None, min_length=3, max_length=1024)
    metrics: tuple[MetricValue, ...] = Field(default=(), max_length=10_000)
    aliases: tuple[Annotated[str, Field(max_length=96)], ...] = Field(default=(), max_length=1000)
    description: str = Field(default="", max_length=4096)
    tags: tuple[Tag, ...] = Field(default=(), max_length=64)
    base_id: Digest | None = None
    decided_at: datetime | None = Field(default=None, exclude=True)
    """When the source decided on the state; None if it never did, and in bundles, which cannot hold it."""

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


def take_snapshot(registry: Registry, version: VersionInfo) -> tuple[VersionSnapshot, Manifest]:
    """Takes the snapshot of a version, and its manifest. Raises `NotFound` if it was deleted in the
    meantime."""
    detail = registry.versions.detail(version.revision_ref)
    adapter = registry.adapters.get(version.name)
    now, change = detail.version, detail.version.last_state_change
    snapshot = VersionSnapshot(
        name=now.name,
        number=now.number,
        digest=now.digest,
        state=now.state,
        reason=change.reason if change else None,
        successor=change.successor if change else None,
        decided_at=change.at if change else None,
        forced=detail.forced,
        metrics=tuple((one.metric, one.value) for one in registry.metrics.list(version.revision_ref)),
        aliases=now.aliases,
        description=adapter.description,
        tags=adapter.tags,
        base_id=now.base_id if now.base_status == "verified" else None,
    )
    return snapshot, detail.manifest
