"""Reports the versions that the engine has loaded, is about to load and failed to serve, for `adaptry
follow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from types import MappingProxyType

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.engine_probe import EngineInfo
from adaptry.integrations.serving.engines import EngineAdapter
from adaptry.integrations.serving.follow.desired_state import DesiredState
from adaptry.integrations.serving.follow.settings import FollowSettings
from adaptry.integrations.serving.worker.backoff import Backoff, ServedVersion
from adaptry.integrations.serving.worker.report_sender import ReportSender
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.integrations.serving.worker.status_report import (
    build_report,
    loaded_residents,
    unserved_residents,
)
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import MAX_RESIDENTS, DroppedAdapter, ReportReply, ResidentReport

NO_LOADS: Mapping[ServedVersion, VersionInfo] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """The actual state: the engine, the base that it serves, the adapters that it has `loaded` (None if it
    does not answer), the number of the newest event read, the versions about to be loaded, the recalled
    versions dropped, and why names are not served as desired."""

    engine: EngineInfo | None
    base_id: Digest | None
    last_event: int | None
    loaded: Sequence[EngineAdapter] | None
    loading: Mapping[ServedVersion, VersionInfo]
    dropped: Sequence[DroppedAdapter]
    problems: Mapping[str, str]


class Reporter:
    """Builds and sends one worker's reports."""

    def __init__(
        self,
        registry: Registry,
        state_file: StateFile,
        settings: FollowSettings,
        desired: DesiredState,
    ) -> None:
        self._sender = ReportSender(registry, desired.recalls)
        self._state_file = state_file
        self._settings = settings
        self._desired = desired
        self._served_since: dict[ServedVersion, datetime] = {}

    @property
    def reply(self) -> ReportReply:
        """The registry's latest reply."""
        return self._sender.reply

    def report(self, now: WorkerSnapshot) -> None:
        """Sends the state, unless it is unchanged and the lease is still fresh. Raises the errors of
        `Registry.report`."""
        engine_info, state = now.engine, self._state_file.state
        residents = None if now.loaded is None else self._residents(now.loaded, now.loading)
        report = build_report(
            self._settings.identity,
            _version_text(engine_info),
            engine_info.models[-1] if engine_info and engine_info.models else None,
            base_id=now.base_id,
            last_event=None if now.loading else now.last_event,
            names=state.meant,
            residents=residents,
            dropped=now.dropped,
            problems=now.problems,
        )
        if self._sender.send(report) and residents is not None:
            state.confirmed = [(one.served_as, one.digest) for one in residents if one.condition != "failed"]
            self._state_file.save_if_possible()

    def renewing(self) -> AbstractContextManager[None]:
        """Until the block ends, repeats the last report before its lease ends."""
        return self._sender.renewing(self._settings.lease)

    def resend_recalls(self, epoch: str) -> None:
        """Sends a restored registry proofs of the recalls that it may have lost. Raises the errors of
        `Registry.report`.
        """
        identity, names = self._settings.identity, self._state_file.state.meant
        self._sender.resend_recalls(
            epoch, lambda: build_report(identity, None, None, last_event=None, names=names, residents=None)
        )

    def _residents(
        self, loaded: Sequence[EngineAdapter], pending: Mapping[ServedVersion, VersionInfo]
    ) -> tuple[ResidentReport, ...]:
        """The versions that are served, will be loaded, or failed, each once for each name."""
        failures, withdrawn = self._desired.backoff, self._desired.recalls.withdrawn
        names = {name: version.name for name, version in self._state_file.state.ours.items()}
        served = loaded_residents(loaded, names, self._served_since, self._desired.last_use.get, withdrawn)
        is_there = {(one.served_as, one.digest) for one in served}
        targets = self._desired.all_targets(self.reply.turns)
        pending = {**_pending_targets(targets, failures), **pending}
        loading = [
            (name, version, None)
            for (name, digest), version in pending.items()
            if (name, digest) not in is_there
        ]
        failed = [
            (name, version, reason)
            for name, version in targets
            if (name, version.digest) not in is_there | pending.keys()
            and (reason := failures.failure_reason((name, version.digest)))
        ]
        found = (*served, *unserved_residents(loading, "loading"), *unserved_residents(failed, "failed"))
        return found[:MAX_RESIDENTS]


def _pending_targets(
    targets: Iterable[tuple[str, VersionInfo]], failures: Backoff
) -> dict[ServedVersion, VersionInfo]:
    """The versions that the engine may still load, although the worker no longer waits for its answer."""
    keyed = {(name, version.digest): version for name, version in targets}
    return {key: version for key, version in keyed.items() if failures.is_pending(key)}


def _version_text(engine: EngineInfo | None) -> str | None:
    version = engine.runtime.version if engine else None
    return ".".join(map(str, version)) if version else None
