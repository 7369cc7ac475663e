"""`adaptry follow`: keeps what an engine has loaded equal to what the registry's aliases say.

A turn looks at both, decides (`planning`), says to the registry what it is about to load, and does it (`acting`). Little is
kept that a look would not show again: a worker that dies goes on where it was, an engine that comes back empty is filled
again, and where the registry is away the engine keeps what it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

from adaptry.core.errors import AdaptryError, CheckFailed, Conflict, StorageFull, Unauthenticated, Unavailable
from adaptry.integrations.engine_probe import EngineInfo
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.compatibility import EngineProfile
from adaptry.integrations.serving.engines import Engine, EngineAdapter
from adaptry.integrations.serving.follow.backoff import Backoff, ServedVersion
from adaptry.integrations.serving.follow.desired_state import DesiredState
from adaptry.integrations.serving.follow.executor import PlanExecutor, version_label
from adaptry.integrations.serving.follow.plan import (
    ActualAdapter,
    DesiredAdapter,
    FollowPlan,
    LoadAction,
    SwapAction,
    UnloadAction,
    plan_actions,
)
from adaptry.integrations.serving.follow.recall_executor import RecallExecutor
from adaptry.integrations.serving.follow.reporter import NO_LOADS, Reporter, WorkerSnapshot
from adaptry.integrations.serving.follow.state_file import StateFile
from adaptry.integrations.serving.follow.status_report import FollowSettings
from adaptry.operations.watch import RefPattern, RefWatcher
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import DroppedAdapter, ReportReply

_MAX_REPLANS = 4  # plans made within a turn, because the registry said something new about the one before
_EVERY = 5.0  # seconds
_PAUSE = 1.0
_PATIENCE = 60.0
_UNREACHABLE = (Unavailable, Unauthenticated)
"""What a registry raises where it cannot be asked: a token that ended is no reason to unload."""


@dataclass(frozen=True, slots=True)
class ReconcilerDeps:
    """What a follower works with. `look` asks the engine what it is, each time it comes back, and `judge` the registry what
    that means for versions; `tell` is told the story, a line at a time."""

    registry: Registry
    engine: Engine
    cache: Cache
    state_file: StateFile
    probe: Callable[[], EngineInfo]
    inspect: Callable[[EngineInfo], EngineProfile]
    log: Callable[[str], None]


class Reconciler:
    """One engine, one registry. `turn` is called again and again, by one thread."""

    def __init__(self, around: ReconcilerDeps, settings: FollowSettings) -> None:
        """Raises `InvalidRef` for what cannot be watched."""
        self._deps = around
        self._settings = settings
        watched = (*settings.watch, *settings.preload)
        self._patterns = tuple(map(RefPattern.parse, watched))
        self._watcher = RefWatcher(around.registry, watched)
        self._recalls = RecallExecutor(around.engine, around.cache, around.state_file, around.log)
        self._backoff = Backoff()
        self._desired = DesiredState(
            around.registry, around.state_file, self._backoff, self._recalls, frozenset(settings.preload)
        )
        self._reporter = Reporter(around.registry, around.engine, around.state_file, settings, self._desired)
        self._engine_info: EngineInfo | None = None
        self._engine_profile: EngineProfile | None = None
        self._transient_errors: dict[str, str] = {}
        self.connection_error: AdaptryError | None = None
        """Why engine or registry could not be asked last; None where both could."""
        self.is_registry_down = False
        """Whether the registry did not answer last."""

    @property
    def _reply(self) -> ReportReply:
        return self._reporter.reply

    def reconcile(self, wait: float) -> bool:
        """A look at both, waiting so long for news, and what follows from it. Whether all is as it should be."""
        around = self._deps
        self.connection_error = None
        self._refresh_refs(wait)
        try:
            loaded = around.engine.list_adapters()
            self._inspect_engine()
            made = self._converge_plan(loaded)
            is_done = self._execute(made)
            after = around.engine.list_adapters()
            self._check_error_rates(after)
            self._finish_pass(after, made)
        except _UNREACHABLE as error:
            around.log(error.message)
            self.connection_error = error
            self._engine_info = self._engine_profile = None
            self._report(None)
            return False
        is_recalling = bool(self._reply.withdrawn)
        is_news = is_recalling or bool(self._plan(after).actions)
        return is_done and not is_news and not self.is_registry_down

    def require_served(self) -> None:
        """Raises `CheckFailed` where something that should be served could not be; what found no slot was not meant to be."""
        failed = [
            f"{name}: {reason}"
            for name, version in self._desired.all_targets(self._reply.turns)
            if (reason := self._backoff.failure_reason((name, version.digest)))
        ]
        if failed:
            raise CheckFailed(f"not served as it should be: {'; '.join(failed)}")

    def _refresh_refs(self, wait: float) -> None:
        """What the refs mean now; where the registry is away, what they meant last."""
        try:
            self._watcher.next_changes(0.0 if self.is_registry_down else wait)
            self._check_epoch()
        except _UNREACHABLE as error:
            self._note_registry_down(error)
            return
        if self.is_registry_down:
            self._deps.log("the registry answers again")
        self.is_registry_down = False
        self._deps.state_file.state.meant = self._watcher.versions
        self._deps.state_file.save_if_possible()

    def _check_epoch(self) -> None:
        """A registry that was restored is shown what it withdrew before, and looked at again, before it is believed."""
        epoch, memory = self._watcher.epoch, self._deps.state_file.state
        if epoch is None or epoch == memory.epoch:
            return
        if memory.epoch is not None:
            self._deps.log("the registry was restored from a backup; reading everything again")
        self._reporter.resend_recalls(epoch)
        self._watcher.reset()
        self._watcher.next_changes(0.0)

    def _note_registry_down(self, error: AdaptryError) -> None:
        if not self.is_registry_down:
            self._deps.log(f"{error.message}; what is loaded stays")
        self.is_registry_down, self.connection_error = True, error

    def _inspect_engine(self) -> None:
        """What the engine is, anew after it was away."""
        running = self._engine_info = self._engine_info or self._deps.probe()
        if self._engine_profile is None and not self.is_registry_down:
            self._engine_profile = self._deps.inspect(running)
            self._deps.state_file.state.served = running.models

    def _converge_plan(self, loaded: Sequence[EngineAdapter]) -> FollowPlan:
        """The plan, once the registry knows what is about to be loaded and has nothing to say against it."""
        for _ in range(_MAX_REPLANS):
            made = self._plan(loaded)
            coming = _pending_loads(made)
            if self.is_registry_down:
                break
            if coming.keys() <= set(self._deps.state_file.state.confirmed):
                return made
            before = self._reply
            self._report(loaded, coming=coming, left_out=made.without_slot)
            if not self.is_registry_down and (before.turns, before.withdrawn) == (
                self._reply.turns,
                self._reply.withdrawn,
            ):
                return made
        memory = self._deps.state_file.state
        is_same = self._engine_info is not None and self._engine_info.models == memory.served
        return _confirmed_only(self._plan(loaded), set(memory.confirmed) if is_same else set())

    def _plan(self, loaded: Sequence[EngineAdapter]) -> FollowPlan:
        self._recalls.update(self._deps.state_file.state.meant, self._reply.withdrawn, loaded)
        had = [ActualAdapter(one.name, one.digest, self._is_ours(one.name)) for one in loaded]
        wanted = self._desired.compute(self._reply.turns)
        return plan_actions(wanted, had, self._settings.slots, self._recalls.withdrawn)

    def _is_ours(self, name: str) -> bool:
        """Whether this worker loaded it, or would: what fits what it watches is its own."""
        return name in self._deps.state_file.state.ours or any(
            pattern.matches_ref(name) for pattern in self._patterns
        )

    def _execute(self, made: FollowPlan) -> bool:
        """Whether every step succeeded. Raises where engine or registry does not answer."""
        around = self._deps
        acting = PlanExecutor(
            around.registry,
            around.engine,
            around.cache,
            around.state_file,
            None if self.is_registry_down else self._engine_profile,
            around.log,
        )
        slots, is_done = self._settings.slots, True
        self._transient_errors = {}
        for step in made.actions:
            place = None if isinstance(step, UnloadAction) else (step.desired.served_as, step.desired.digest)
            has_room = slots is None or len(around.engine.list_adapters()) < slots
            try:
                acting.apply(step, has_room)
            except AdaptryError as error:
                self._handle_failure(place, error)
                is_done = False
            else:
                if place:
                    self._backoff.record_success(place)
        return is_done

    def _handle_failure(self, place: ServedVersion | None, error: AdaptryError) -> None:
        """Notes why a step failed: of the version, or only of this time. Raises where engine or registry is away."""
        is_passing = isinstance(error, (Conflict, *_UNREACHABLE)) and not isinstance(error, StorageFull)
        if isinstance(error, _UNREACHABLE) and is_passing:
            self._deps.engine.list_adapters()
            if not self.is_registry_down:
                self._deps.registry.events()
        self._deps.log(error.message)
        if place and is_passing:
            self._transient_errors[place[0]] = error.message
        elif place:
            self._backoff.record_failure(place, error.message)

    def _check_error_rates(self, loaded: Sequence[EngineAdapter]) -> None:
        """A version that is being rolled out and makes the engine fail has failed."""
        turns = {f"{one.name}@{one.alias}": one.digest for one in self._reply.turns}
        for one in loaded:
            if one.digest and turns.get(one.name) == one.digest:
                place = (one.name, one.digest)
                if reason := self._backoff.check_error_rate(place, self._deps.engine.request_counts()):
                    self._backoff.record_failure(place, reason)

    def _finish_pass(self, loaded: Sequence[EngineAdapter], made: FollowPlan) -> None:
        """Lets go of files that nothing uses, and says how things are."""
        digests = {one.digest for one in loaded}
        for entry in self._deps.cache.entries():
            if entry.digest not in digests:
                self._deps.cache.release(entry.digest)
        self._report(loaded, left_out=made.without_slot)
        self._recalls.update(self._deps.state_file.state.meant, self._reply.withdrawn, loaded)
        self._recalls.delete_files(loaded)
        if not self._reply.withdrawn:
            return
        if dropped := self._recalls.confirm_dropped(self._reply.withdrawn, loaded):
            self._report(loaded, dropped=dropped, left_out=made.without_slot)
            self._deps.log(
                f"dropped {', '.join(f'{one.name} {one.digest.brief}' for one in dropped)}: it is refused here now"
            )

    def _report(
        self,
        loaded: Sequence[EngineAdapter] | None,
        *,
        coming: Mapping[ServedVersion, VersionInfo] = NO_LOADS,
        dropped: Sequence[DroppedAdapter] = (),
        left_out: Sequence[DesiredAdapter] = (),
    ) -> None:
        """Says how things are; where the registry is away, nobody hears it."""
        now = WorkerSnapshot(
            self._engine_info, self._watcher.seq, loaded, coming, dropped, self._problems(left_out)
        )
        try:
            self._reporter.report(now)
        except _UNREACHABLE as error:
            self._note_registry_down(error)

    def _problems(self, left_out: Sequence[DesiredAdapter]) -> dict[str, str]:
        """Each name that is not served as it should be, and why."""
        troubles = {
            one.served_as: f"no slot is free for {version_label(one.version)} ({self._settings.slots} are in use)"
            for one in left_out
        }
        troubles |= self._transient_errors
        for name, version in self._desired.all_targets(self._reply.turns):
            if reason := self._backoff.failure_reason((name, version.digest)):
                troubles[name] = reason
            elif not self._desired.is_usable(version):
                troubles[name] = f"{version_label(version)} is withdrawn; move the alias to another version"
        return troubles


def _pending_loads(made: FollowPlan) -> dict[ServedVersion, VersionInfo]:
    """What a plan loads, under every name that it loads it under."""
    found: dict[ServedVersion, VersionInfo] = {}
    for step in made.actions:
        if isinstance(step, LoadAction | SwapAction):
            version = step.desired.version
            found[step.desired.served_as, version.digest] = version
    return found


def _confirmed_only(made: FollowPlan, confirmed: set[ServedVersion]) -> FollowPlan:
    """The steps that need no word from the registry: unloading, and loading what it knows to be here."""
    steps = [
        step
        for step in made.actions
        if isinstance(step, UnloadAction) or (step.desired.served_as, step.desired.digest) in confirmed
    ]
    return FollowPlan(tuple(steps), made.without_slot)


def run_forever(follower: Reconciler, stop: Event, every: float = _EVERY) -> None:
    """Turn after turn until `stop`. Waits for news at most `every` seconds, so that an engine that was started anew is not
    empty for longer."""
    wait = 0.0
    while not stop.is_set():
        is_settled = follower.reconcile(wait)
        wait = every if is_settled else 0.0
        if not is_settled:
            stop.wait(_PAUSE)


def converge(follower: Reconciler, stop: Event, patience: float = _PATIENCE) -> None:
    """Turn after turn until all is as it should be, or `stop`. Raises why engine or registry cannot be asked, and `CheckFailed` where
    something that should be served is not, or is not settled after `patience` seconds."""
    until = time.monotonic() + patience
    while not stop.is_set():
        is_settled = follower.reconcile(0.0)
        if follower.connection_error:
            raise follower.connection_error
        if is_settled:
            follower.require_served()
            return
        if time.monotonic() > until:
            raise CheckFailed(
                f"not all is as it should be after {patience:.0f} s; what is left to do was said above"
            )
        stop.wait(_PAUSE)
