"""What is said to the registry of how things are, and what it said last.

It is said when it is new, and again before the registry would take it for lost. What is withdrawn and whose turn it is in a
rollout comes back with every answer, so as long as there is any of that, it is said every time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from adaptry.integrations.engine_probe import EngineInfo
from adaptry.integrations.serving.engines import Engine, EngineAdapter
from adaptry.integrations.serving.follow.backoff import ServedVersion
from adaptry.integrations.serving.follow.desired_state import DesiredState
from adaptry.integrations.serving.follow.state_file import StateFile
from adaptry.integrations.serving.follow.status_report import (
    FollowSettings,
    ServingTimes,
    build_report,
    loaded_residents,
    unserved_residents,
)
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import DroppedAdapter, ReportReply, ResidentReport

_PROOFS = 4096  # that go into one report
NO_LOADS: Mapping[ServedVersion, VersionInfo] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """How things are: what the engine is and what it has `loaded` (None where it does not answer), the newest event that was
    `seen`, what is `coming`, what was `dropped`, and why a name is not served as it should be."""

    engine: EngineInfo | None
    last_event: int | None
    loaded: Sequence[EngineAdapter] | None
    loading: Mapping[ServedVersion, VersionInfo]
    dropped: Sequence[DroppedAdapter]
    problems: Mapping[str, str]


class Reporter:
    """One worker's reports. `told` is what the registry answered to the last of them."""

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        memory: StateFile,
        settings: FollowSettings,
        wanting: DesiredState,
    ) -> None:
        self.reply = ReportReply(seq=0)
        self._registry = registry
        self._engine = engine
        self._state_file = memory
        self._settings = settings
        self._desired = wanting
        self._times = ServingTimes()
        self._reported_at = 0.0
        self._last_report: object = None

    def report(self, now: WorkerSnapshot) -> None:
        """Says how things are, unless that was said already and still holds for a while. Raises as `Registry.report`."""
        running, memory = now.engine, self._state_file.state
        residents = None if now.loaded is None else self._residents(now.loaded, now.loading)
        report = build_report(
            self._settings,
            running,
            running.models[-1] if running and running.models else None,
            seen=None if now.loading else now.last_event,
            names=memory.meant,
            residents=residents,
            dropped=now.dropped,
            troubles=now.problems,
        )
        said = report.model_dump()
        is_fresh = time.monotonic() - self._reported_at < self._settings.lease / 3
        if said == self._last_report and is_fresh and not (self.reply.withdrawn or self.reply.turns):
            return
        self.reply = self._registry.report(report)
        self._desired.recalls.store_proofs(self.reply.withdrawn, self.reply.epoch)
        self._last_report, self._reported_at = said, time.monotonic()
        if residents is not None:
            memory.confirmed = [(one.served_as, one.digest) for one in residents if one.condition != "failed"]
            self._state_file.save_if_possible()

    def resend_recalls(self, epoch: str) -> None:
        """Shows a registry in a new epoch what it withdrew before, which it may have forgotten; raises as `Registry.report`."""
        memory, settings = self._state_file.state, self._settings
        proofs = tuple(one for one in memory.proofs.values() if one.epoch != epoch)
        for at in range(0, len(proofs), _PROOFS):
            report = build_report(settings, None, None, seen=None, names=memory.meant, residents=None)
            self.reply = self._registry.report(
                report.model_copy(update={"recalled": proofs[at : at + _PROOFS]})
            )
        memory.epoch, memory.confirmed, self._last_report = epoch, [], None
        self._state_file.save_if_possible()

    def _residents(
        self, loaded: Sequence[EngineAdapter], coming: Mapping[ServedVersion, VersionInfo]
    ) -> tuple[ResidentReport, ...]:
        """What is served, what is about to be, and what should be and failed; each under its name, once."""
        failures, withdrawn = self._desired.backoff, self._desired.recalls.withdrawn
        names = {name: version.name for name, version in self._state_file.state.ours.items()}
        served = loaded_residents(loaded, names, self._times, self._engine.names_in_use(), withdrawn)
        is_there = {(one.served_as, one.digest) for one in served}
        loading = [
            (name, version, None)
            for (name, digest), version in coming.items()
            if (name, digest) not in is_there
        ]
        failed = [
            (name, version, reason)
            for name, version in self._desired.all_targets(self.reply.turns)
            if (name, version.digest) not in is_there | coming.keys()
            and (reason := failures.failure_reason((name, version.digest)))
        ]
        return (*served, *unserved_residents(loading, "loading"), *unserved_residents(failed, "failed"))
