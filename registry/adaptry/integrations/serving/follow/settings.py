"""The settings of `adaptry follow`."""

from __future__ import annotations

from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.worker.status_report import WorkerIdentity
from adaptry.registry.workers import MAX_RESIDENTS

_MAX_LOADED = MAX_RESIDENTS - 96
"""A report also has versions that are loaded for a test."""


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
    def most_loaded(self) -> int:
        """The maximum number of loaded adapters: `slots`, but at most as many as fit in a report."""
        return min(self.slots or _MAX_LOADED, _MAX_LOADED)

    @property
    def identity(self) -> WorkerIdentity:
        return WorkerIdentity(self.name, self.engine, self.slots, self.lease, self.url)
