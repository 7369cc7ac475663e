"""Sends worker status reports and keeps the latest reply.

A report is sent when it differs from the last one, and repeated before its lease ends. Every reply lists the
withdrawn versions and the rollouts assigned to this worker; while there are any, a report is sent in every
pass.
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

_PROOFS = 4096  # recall proofs per report
NO_LOADS: Mapping[ServedVersion, VersionInfo] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """The actual state: what the engine is and has `loaded` (None if it does not answer), the number of the
    newest event read, the versions about to be loaded, the recalled versions dropped, and why names are not
    served as desired."""

    engine: EngineInfo | None
    last_event: int | None
    loaded: Sequence[EngineAdapter] | None
    loading: Mapping[ServedVersion, VersionInfo]
    dropped: Sequence[DroppedAdapter]
    problems: Mapping[str, str]


class Reporter:
    """Sends one worker's reports. `reply` is the registry's latest reply."""

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        state_file: StateFile,
        settings: FollowSettings,
        desired: DesiredState,
    ) -> None:
        self.reply = ReportReply(seq=0)
        self._registry = registry
        self._engine = engine
        self._state_file = state_file
        self._settings = settings
        self._desired = desired
        self._times = ServingTimes()
        self._reported_at = 0.0
        self._last_report: object = None

    def report(self, now: WorkerSnapshot) -> None:
        """Sends the state, unless just reported with the lease still fresh. Raises as `Registry.report`."""
        engine_info, state = now.engine, self._state_file.state
        residents = None if now.loaded is None else self._residents(now.loaded, now.loading)
        report = build_report(
            self._settings,
            engine_info,
            engine_info.models[-1] if engine_info and engine_info.models else None,
            seen=None if now.loading else now.last_event,
            names=state.meant,
            residents=residents,
            dropped=now.dropped,
            troubles=now.problems,
        )
        content = report.model_dump()
        is_fresh = time.monotonic() - self._reported_at < self._settings.lease / 3
        if content == self._last_report and is_fresh and not (self.reply.withdrawn or self.reply.turns):
            return
        self.reply = self._registry.workers.report(report)
        self._desired.recalls.store_proofs(self.reply.withdrawn, self.reply.epoch)
        self._last_report, self._reported_at = content, time.monotonic()
        if residents is not None:
            state.confirmed = [(one.served_as, one.digest) for one in residents if one.condition != "failed"]
            self._state_file.save_if_possible()

    def resend_recalls(self, epoch: str) -> None:
        """Sends a restored registry proofs of recalls it may have lost. Raises as `Registry.report`."""
        state, settings = self._state_file.state, self._settings
        proofs = tuple(one for one in state.proofs.values() if one.epoch != epoch)
        for at in range(0, len(proofs), _PROOFS):
            report = build_report(settings, None, None, seen=None, names=state.meant, residents=None)
            self.reply = self._registry.workers.report(
                report.model_copy(update={"recalled": proofs[at : at + _PROOFS]})
            )
        state.epoch, state.confirmed, self._last_report = epoch, [], None
        self._state_file.save_if_possible()

    def _residents(
        self, loaded: Sequence[EngineAdapter], pending: Mapping[ServedVersion, VersionInfo]
    ) -> tuple[ResidentReport, ...]:
        """The versions that are served, about to be loaded, or failed, each once per name."""
        failures, withdrawn = self._desired.backoff, self._desired.recalls.withdrawn
        names = {name: version.name for name, version in self._state_file.state.ours.items()}
        served = loaded_residents(loaded, names, self._times, self._engine.names_in_use(), withdrawn)
        is_there = {(one.served_as, one.digest) for one in served}
        loading = [
            (name, version, None)
            for (name, digest), version in pending.items()
            if (name, digest) not in is_there
        ]
        failed = [
            (name, version, reason)
            for name, version in self._desired.all_targets(self.reply.turns)
            if (name, version.digest) not in is_there | pending.keys()
            and (reason := failures.failure_reason((name, version.digest)))
        ]
        return (*served, *unserved_residents(loading, "loading"), *unserved_residents(failed, "failed"))
