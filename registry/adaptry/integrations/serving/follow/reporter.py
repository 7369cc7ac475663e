"""What is said to the registry of how things are, and what it said last.

It is said when it is new, and again before the registry would take it for lost. What is withdrawn and whose turn it is in a
rollout comes back with every answer, so as long as there is any of that, it is said every time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from adaptry.integrations.engine_probe import Running
from adaptry.integrations.serving.engines import Engine, Loaded
from adaptry.integrations.serving.follow.backoff import Place
from adaptry.integrations.serving.follow.desired import Wanting
from adaptry.integrations.serving.follow.state_file import Memory
from adaptry.integrations.serving.follow.status_report import Ledger, Settings, about, report_of, residents_of
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import Dropped, Resident, Told

_PROOFS = 4096  # that go into one report
NOTHING: Mapping[Place, VersionInfo] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Now:
    """How things are: what the engine is and what it has `loaded` (None where it does not answer), the newest event that was
    `seen`, what is `coming`, what was `dropped`, and why a name is not served as it should be."""

    running: Running | None
    seen: int | None
    loaded: Sequence[Loaded] | None
    coming: Mapping[Place, VersionInfo]
    dropped: Sequence[Dropped]
    troubles: Mapping[str, str]


class Saying:
    """One worker's reports. `told` is what the registry answered to the last of them."""

    def __init__(
        self, registry: Registry, engine: Engine, memory: Memory, settings: Settings, wanting: Wanting
    ) -> None:
        self.told = Told(seq=0)
        self._registry = registry
        self._engine = engine
        self._memory = memory
        self._settings = settings
        self._wanting = wanting
        self._ledger = Ledger()
        self._reported_at = 0.0
        self._last: object = None

    def say(self, now: Now) -> None:
        """Says how things are, unless that was said already and still holds for a while. Raises as `Registry.report`."""
        running, memory = now.running, self._memory.now
        residents = None if now.loaded is None else self._residents(now.loaded, now.coming)
        report = report_of(
            self._settings,
            running,
            running.models[-1] if running and running.models else None,
            seen=None if now.coming else now.seen,
            names=memory.meant,
            residents=residents,
            dropped=now.dropped,
            troubles=now.troubles,
        )
        said = report.model_dump()
        is_fresh = time.monotonic() - self._reported_at < self._settings.lease / 3
        if said == self._last and is_fresh and not (self.told.withdrawn or self.told.turns):
            return
        self.told = self._registry.report(report)
        self._wanting.recalling.keep_proofs(self.told.withdrawn, self.told.epoch)
        self._last, self._reported_at = said, time.monotonic()
        if residents is not None:
            memory.confirmed = [(one.served_as, one.digest) for one in residents if one.condition != "failed"]
            self._memory.note()

    def greet(self, epoch: str) -> None:
        """Shows a registry in a new epoch what it withdrew before, which it may have forgotten; raises as `Registry.report`."""
        memory, settings = self._memory.now, self._settings
        proofs = tuple(one for one in memory.proofs.values() if one.epoch != epoch)
        for at in range(0, len(proofs), _PROOFS):
            report = report_of(settings, None, None, seen=None, names=memory.meant, residents=None)
            self.told = self._registry.report(
                report.model_copy(update={"recalled": proofs[at : at + _PROOFS]})
            )
        memory.epoch, memory.confirmed, self._last = epoch, [], None
        self._memory.note()

    def _residents(
        self, loaded: Sequence[Loaded], coming: Mapping[Place, VersionInfo]
    ) -> tuple[Resident, ...]:
        """What is served, what is about to be, and what should be and failed; each under its name, once."""
        failures, withdrawn = self._wanting.failures, self._wanting.recalling.withdrawn
        names = {name: version.name for name, version in self._memory.now.ours.items()}
        served = residents_of(loaded, names, self._ledger, self._engine.busy(), withdrawn)
        is_there = {(one.served_as, one.digest) for one in served}
        loading = [
            (name, version, None)
            for (name, digest), version in coming.items()
            if (name, digest) not in is_there
        ]
        failed = [
            (name, version, reason)
            for name, version in self._wanting.asked(self.told.turns)
            if (name, version.digest) not in is_there | coming.keys()
            and (reason := failures.reason((name, version.digest)))
        ]
        return (*served, *about(loading, "loading"), *about(failed, "failed"))
