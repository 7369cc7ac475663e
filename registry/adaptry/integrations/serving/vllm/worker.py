"""The worker in vLLM: reports the engine's adapters to the registry, and proves recalls.

Like `adaptry follow`, it reports a version before it is loaded, and gets recalls and rollout assignments in
return. Blocking calls run on its own threads; a lock keeps reports and recalls in order. If the token may not
report, or the registry accepts no reports, adapters are served but nothing is proved; this is logged once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from datetime import UTC, datetime
from typing import TypeVar

from adaptry.core.digest import Digest
from adaptry.core.errors import (
    AdaptryError,
    Invalid,
    NotFound,
    PermissionDenied,
    ProtocolMismatch,
    Unavailable,
)
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Label, Ref
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engines import EngineAdapter
from adaptry.integrations.serving.vllm.lookup import UNREACHABLE
from adaptry.integrations.serving.worker.backoff import Backoff, ServedVersion
from adaptry.integrations.serving.worker.load_journal import CrashPause, LoadJournal
from adaptry.integrations.serving.worker.name_claim import claim_name
from adaptry.integrations.serving.worker.recall_executor import RecallExecutor
from adaptry.integrations.serving.worker.report_sender import ReportSender
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.integrations.serving.worker.status_report import (
    WorkerIdentity,
    build_report,
    unserved_residents,
)
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import (
    MAX_RESIDENTS,
    DroppedAdapter,
    ReportReply,
    ResidentReport,
    RolloutAssignment,
)

log = logging.getLogger("vllm.adaptry")

_CANNOT_REPORT = (PermissionDenied, NotFound, Invalid, ProtocolMismatch)
"""Errors of a report that would be the same for the next one."""
_RETRY_SECONDS = 600.0  # before the next report to a registry that refused one
_THREADS = 16
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """The engine's state: a resident for each name and version, the loaded adapters under their own names
    (`loaded`), the loaded names that running requests use, the aliases that are served (`refs`), and why
    names are not served (`problems`). `last_event` is the number of the newest event that was read."""

    residents: tuple[ResidentReport, ...] = ()
    loaded: tuple[EngineAdapter, ...] = ()
    in_use: frozenset[str] = frozenset()
    refs: frozenset[str] = frozenset()
    problems: dict[str, str] = field(default_factory=dict)
    last_event: int | None = None


@dataclass(slots=True)
class SnapshotEngine:
    """The engine as recalls use it: a snapshot, and requests for names, which vLLM answers or refuses."""

    is_refused: Callable[[str], bool]
    is_unload_final: bool = True
    in_use: frozenset[str] = frozenset()

    def restart(self) -> None:
        """This is never called, because unloading is final here."""

    def names_in_use(self) -> frozenset[str]:
        return self.in_use

    def refuses(self, name: str) -> bool:
        return self.is_refused(name)


class VllmWorker:
    """Reports for one vLLM. `snapshot` is called on the event loop. `is_refused` is called on a thread and
    returns whether vLLM refuses a request for a name because its version is withdrawn."""

    def __init__(
        self,
        registry: Registry,
        cache: Cache,
        version: str,
        snapshot: Callable[[], EngineSnapshot],
        is_refused: Callable[[str], bool],
        *,
        name: str | None = None,
        max_age: int | None = None,
        base: str | None = None,
    ) -> None:
        """Raises `Conflict` if another engine of this machine reports as `name`; `Unavailable`."""
        self._claim = claim_name(cache.root, "vllm", name)
        self.identity: WorkerIdentity = WorkerIdentity(self._claim.name, "vllm", max_age=max_age)
        self._state_file = StateFile(self._claim.state_path)
        self.journal: LoadJournal = LoadJournal(
            self._claim.state_path.with_name(f"loads-{self.identity.name}.json")
        )
        self._version, self._base = version, base[:256] if base else None
        self._base_id: Digest | None = None
        self._snapshot = snapshot
        self._engine = SnapshotEngine(is_refused)
        self._recalls = RecallExecutor(self._engine, cache, self._state_file, log.warning)
        self._sender = ReportSender(registry, self._recalls)
        self._backoff = Backoff()
        self._pending: dict[ServedVersion, VersionInfo] = {}
        self._reported: set[ServedVersion] = set()
        self._lock = asyncio.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, "adaptry")
        self._cannot_report: str | None = None
        self._ask_again_at = 0.0

    @property
    def reply(self) -> ReportReply:
        """The registry's latest reply."""
        return self._sender.reply

    @property
    def cannot_report(self) -> str | None:
        """Why the registry accepts no reports from this worker; None if it does."""
        return self._cannot_report

    def is_accounted_for(self, served_as: str, version: VersionInfo) -> bool:
        """Whether the registry knows that the version may be served under the name, or accepts no reports."""
        return self._cannot_report is not None or (served_as, version.digest) in self._reported

    @property
    def withdrawn(self) -> Mapping[Digest, AdapterName]:
        """The adapter of each withdrawn version that this worker has been notified of."""
        return dict(self._recalls.withdrawn)

    def close(self) -> None:
        """Releases the worker's name, and ends its threads."""
        self._threads.shutdown(wait=False)
        self._claim.lock.release()

    def note_base(self, id: Digest) -> None:
        """Records which base the engine serves, for the next reports."""
        self._base_id = id

    def begin(self, call: Callable[..., object], *arguments: object) -> None:
        """Begins a blocking call on one of the worker's threads."""
        self._threads.submit(call, *arguments)

    async def run(self, call: Callable[..., Answer], *arguments: object) -> Answer:
        """Runs a blocking call on one of the worker's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def rollout_assignment(self, ref: Ref) -> RolloutAssignment | None:
        """The rollout that this worker follows under the ref, unless its version failed here."""
        if not isinstance(ref.selector, Label):
            return None
        for one in self.reply.turns:
            if (one.name, one.alias) == (ref.name, ref.selector.label):
                return None if self._backoff.is_blocked((str(ref), one.digest)) else one
        return None

    def note_rollout_failure(self, ref: Ref, error: AdaptryError) -> bool:
        """Records why the version of a rollout could not be served under the ref: this stops the rollout.
        Returns whether there was one to stop."""
        assignment = self.rollout_assignment(ref)
        is_transient = isinstance(error, UNREACHABLE) and not isinstance(error, CrashPause)
        if assignment is None or is_transient:
            return False
        self._backoff.record_failure((str(ref), assignment.digest), error.message)
        return True

    async def note_state(self, version: VersionInfo) -> None:
        """Records that the registry withdrew the version, or unblocks it."""
        if self._recalls.is_changed_by(version):
            async with self._lock:
                await self.run(self._note_state, version)

    def _note_state(self, version: VersionInfo) -> None:
        self._recalls.note_state(version)
        if version.digest in self._recalls.withdrawn:
            self._recalls.note_name(version.digest, str(Ref.of_revision(version.name, version.digest)))
        self._state_file.save_if_possible()

    @contextlib.asynccontextmanager
    async def loading(
        self, served_as: str, version: VersionInfo, is_away: Callable[[], bool]
    ) -> AsyncIterator[None]:
        """Reports that the version will be loaded under the name, before the block loads it; if the registry
        `is_away`, it is reported later. Raises `Unavailable` if it does not answer."""
        key = (served_as, version.digest)
        self._pending[key] = version
        try:
            if key not in self._reported and not is_away():
                async with self._lock:
                    # The last holder of the lock may have reported this, or found the registry unreachable.
                    if key not in self._reported and not is_away():
                        await self._report()
                        self._require_reported(served_as, version)
            yield
        finally:
            self._pending.pop(key, None)

    def _require_reported(self, served_as: str, version: VersionInfo) -> None:
        """Raises `Unavailable` if the report had no room for the version."""
        if not self.is_accounted_for(served_as, version):
            raise Unavailable(
                f"{MAX_RESIDENTS} adapters are loaded, and no more can be reported; request {served_as}"
                " again later"
            )

    async def report(self) -> None:
        """Sends the state if it changed or the lease ends soon. Raises `Unavailable`, `Unauthenticated`."""
        async with self._lock:
            await self._report()

    async def prove_recalls(self) -> None:
        """Deletes the files of withdrawn versions that are unloaded, and reports those that are dropped.
        Raises `Unavailable`, `Unauthenticated`."""
        async with self._lock:
            now = self._snapshot()
            self._engine.in_use = now.in_use
            await self.run(self._recalls.delete_files, now.loaded)
            if self.reply.withdrawn and (dropped := await self.run(self._confirm_dropped, now.loaded)):
                await self._report(dropped)
                log.warning(
                    "dropped %s: this worker no longer serves it",
                    ", ".join(f"{one.name} {one.digest.brief}" for one in dropped),
                )

    def _confirm_dropped(self, loaded: Sequence[EngineAdapter]) -> tuple[DroppedAdapter, ...]:
        for one in (
            self.reply.withdrawn
        ):  # an earlier process may have loaded it under names that are no longer known
            self._recalls.note_name(one.digest, str(Ref.of_revision(one.name, one.digest)))
        return self._recalls.confirm_dropped(self.reply.withdrawn, loaded)

    async def _report(self, dropped: Sequence[DroppedAdapter] = ()) -> None:
        if self._cannot_report and time.monotonic() < self._ask_again_at:
            return
        now = self._snapshot()
        residents = self._all_residents(now)[:MAX_RESIDENTS]
        aliases = {name for name, _ in self._pending} | now.refs
        report = build_report(
            self.identity,
            self._version,
            self._base,
            base_id=self._base_id,
            last_event=None if self._pending else now.last_event,
            names=aliases,
            residents=residents,
            dropped=dropped,
            problems=now.problems,
        )
        try:
            is_sent = await self.run(self._sender.send, report)
        except _CANNOT_REPORT as error:
            self._note_cannot_report(error)
            return
        if self._cannot_report:
            log.warning("the registry accepts reports from %s again", self.identity.name)
            self._cannot_report = None
        if is_sent:
            self._reported = {(one.served_as, one.digest) for one in residents if one.condition != "failed"}
            await self.run(self._take_reply, now)

    def _take_reply(self, now: EngineSnapshot) -> None:
        """Records the recalls of a reply; after a restore of the registry, sends it the recalls that it may
        lack.
        """
        state, reply = self._state_file.state, self.reply
        if reply.epoch and reply.epoch != state.epoch:
            self._sender.resend_recalls(
                reply.epoch,
                lambda: build_report(
                    self.identity, self._version, self._base, last_event=None, names=(), residents=None
                ),
            )
        self._recalls.update({}, reply.withdrawn, now.loaded)

    def _all_residents(self, now: EngineSnapshot) -> tuple[ResidentReport, ...]:
        """The loaded, planned and failed residents, each once for each name and version."""
        is_there = {(one.served_as, one.digest) for one in now.residents}
        loading = [
            (name, one, None)
            for (name, digest), one in self._pending.items()
            if (name, digest) not in is_there
        ]
        failed = [
            ResidentReport(
                name=one.name,
                digest=one.digest,
                served_as=f"{one.name}@{one.alias}",
                condition="failed",
                since=datetime.now(UTC),
                reason=reason[:2048],
            )
            for one in self.reply.turns
            if (reason := self._backoff.failure_reason((f"{one.name}@{one.alias}", one.digest)))
        ]
        failed = [one for one in failed if (one.served_as, one.digest) not in is_there | self._pending.keys()]
        return (*now.residents, *unserved_residents(loading, "loading"), *failed)

    def _note_cannot_report(self, error: AdaptryError) -> None:
        self._ask_again_at = time.monotonic() + _RETRY_SECONDS
        if self._cannot_report is None:
            log.warning(
                "%s cannot report to the registry, so the registry does not know what it serves, its recalls"
                " are not proved, and it takes no part in rollouts: %s",
                self.identity.name,
                error.message,
            )
        self._cannot_report = error.message
