"""The settings of `adaptry follow`."""

from __future__ import annotations

from dataclasses import dataclass

from adaptry.integrations.serving.worker.status_report import WorkerIdentity


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """The worker's settings: its name, the refs to watch, to preload and to pin, and the maximum number of
    loaded adapters (`slots`)."""

    name: str
    engine: str
    watch: tuple[str, ...]
    preload: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()
    slots: int | None = None
    lease: int = 60
    url: str | None = None

    @property
    def identity(self) -> WorkerIdentity:
        return WorkerIdentity(self.name, self.engine, self.slots, self.lease, self.url)
