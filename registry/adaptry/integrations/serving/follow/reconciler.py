"""`adaptry follow`: keeps an engine's loaded adapters equal to the versions of the registry's aliases.

Each pass compares the desired state (`desired_state`) with the actual state (what the engine lists), plans
actions (`plan`), reports the planned loads to the registry (`reporter`) and executes them (`executor`);
failures back off (`backoff`). Almost all state can be read again from the engine and the registry: a worker
that dies continues where it was, an engine that restarts empty is filled again, and while the registry is
down the engine keeps what it has loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from adaptry.core.errors import AdaptryError, CheckFailed, PermissionDenied
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.engine_probe import EngineInfo
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.compatibility import EngineProfile
from adaptry.integrations.serving.engines import Engine, EngineAdapter, EngineTimeout
from adaptry.integrations.serving.follow.action_failures import ActionFailures
from adaptry.integrations.serving.follow.alias_generations import AliasGenerations
from adaptry.integrations.serving.follow.cache_holds import release_unused
from adaptry.integrations.serving.follow.desired_state import DesiredState
from adaptry.integrations.serving.follow.engine_inspection import EngineInspection
from adaptry.integrations.serving.follow.executor import PlanExecutor
from adaptry.integrations.serving.follow.last_use import LastUse
from adaptry.integrations.serving.follow.lost_refs import LostRefs
from adaptry.integrations.serving.follow.plan import (
    ActualAdapter,
    DesiredAdapter,
    FollowPlan,
    UnloadAction,
    confirmed_only,
    pending_loads,
    plan_actions,
)
from adaptry.integrations.serving.follow.problem_log import ProblemLog
from adaptry.integrations.serving.follow.problem_rank import ranked_problems, target_problems
from adaptry.integrations.serving.follow.registry_status import UNREACHABLE, RegistryStatus
from adaptry.integrations.serving.follow.reporter import NO_LOADS, Reporter, WorkerSnapshot
from adaptry.integrations.serving.follow.residency import Residency, loaded_versions
from adaptry.integrations.serving.follow.settings import FollowSettings
from adaptry.integrations.serving.follow.unanswered_loads import UnansweredLoads
from adaptry.integrations.serving.worker.backoff import Backoff, ServedVersion
from adaptry.integrations.serving.worker.recall_executor import RecallExecutor
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.operations.watch import RefPattern, RefWatcher
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import DroppedAdapter, ReportReply

_MAX_REPLANS = 4  # plans per pass: the registry's reply to a report can change the plan that was reported


@dataclass(frozen=True, slots=True)
class ReconcilerDeps:
    """The dependencies of a reconciler. `probe` detects the kind of engine, again after each outage;
    `inspect` identifies its base and limits with the registry's help; `log` gets one line for each event."""

    registry: Registry
    engine: Engine
    cache: Cache
    state_file: StateFile
    probe: Callable[[], EngineInfo]
    inspect: Callable[[EngineInfo], EngineProfile]
    log: Callable[[str], None]


class Reconciler:
    """Reconciles one engine with one registry. One thread calls `reconcile` repeatedly."""

    def __init__(self, deps: ReconcilerDeps, settings: FollowSettings) -> None:
        """Raises `InvalidRef` for a ref that cannot be watched."""
        self._deps = deps
        self._settings = settings
        watched = (*settings.watch, *settings.preload, *settings.pin)
        self._patterns = tuple(map(RefPattern.parse, watched))
        self._watcher = RefWatcher(deps.registry, watched)
        self._generations = AliasGenerations(deps.registry, deps.state_file)
        self._lost = LostRefs(deps.registry, settings.name, self._patterns, deps.log)
        self._recalls = RecallExecutor(deps.engine, deps.cache, deps.state_file, deps.log)
        self._backoff = Backoff()
        self._unanswered = UnansweredLoads(deps.engine, self._backoff)
        self._last_use = LastUse(deps.engine)
        self._desired = DesiredState(
            deps.registry,
            deps.state_file,
            self._backoff,
            self._recalls,
            frozenset(settings.preload),
            frozenset(settings.pin),
            self._last_use,
        )
        self._reporter = Reporter(deps.registry, deps.state_file, settings, self._desired)
        self._inspection = EngineInspection(deps.engine, deps.state_file, deps.probe, deps.inspect)
        self._failures = ActionFailures(deps.registry, deps.engine, self._backoff, deps.log)
        self._engine_log = ProblemLog(deps.log)
        self._status = RegistryStatus(deps.log)
        self._engine_error: AdaptryError | None = None
        self.residency = Residency(settings.engine, slots=settings.slots)
        """The engine's state after the last pass. It is replaced as a whole, since other threads may read
        it."""

    @property
    def connection_error(self) -> AdaptryError | None:
        """Why the engine or the registry did not answer in the last pass or refused a report; None if neither
        happened.
        """
        return self._engine_error or self._status.error

    @property
    def is_registry_down(self) -> bool:
        """Whether the registry failed to answer its last request."""
        return self._status.is_down

    @property
    def _reply(self) -> ReportReply:
        return self._reporter.reply

    def reconcile(self, wait: float) -> bool:
        """One pass: waits up to `wait` seconds, plans, executes. Returns whether actual equals desired.
        However long the pass takes, the registry keeps a valid report of this worker."""
        with self._reporter.renewing():
            return self._reconcile(wait)

    def _reconcile(self, wait: float) -> bool:
        deps = self._deps
        self._engine_error = self._status.error = None
        self._refresh_refs(wait)
        try:
            self._last_use.observe()
            loaded = self._list_checked()
            plan = self._converge_plan(loaded)
            is_done = self._execute(plan)
            after = deps.engine.list_adapters()
            self._note_names(loaded, plan, after)
            self._check_error_rates(after)
            self._finish_pass(after, plan)
        except UNREACHABLE as error:
            self._engine_log.note(deps.engine.client.url, error.message)
            self._engine_error = error
            self._inspection.forget()
            self._report(None)
            self._note_residency(None, is_settled=False)
            return False
        self._engine_log.resolve(
            deps.engine.client.url, f"the engine at {deps.engine.client.url} answers again"
        )
        is_recalling = bool(self._reply.withdrawn)
        is_news = is_recalling or bool(self._plan(after).actions)
        self._note_residency(after, plan.without_slot, is_settled=is_done and not is_news)
        return is_done and not is_news and not self.is_registry_down

    @property
    def has_pending_loads(self) -> bool:
        """Whether the engine may still load a desired version, although the worker waits no longer."""
        keys = ((name, one.digest) for name, one in self._desired.all_targets(self._reply.turns))
        return any(map(self._backoff.is_pending, keys))

    def require_served(self) -> None:
        """Raises `CheckFailed` if a desired version failed to load. An adapter that is left out because no
        slot is free is not a failure."""
        failed = [
            f"{name}: {reason}"
            for name, version in self._desired.all_targets(self._reply.turns)
            if (reason := self._backoff.failure_reason((name, version.digest)))
        ]
        if failed:
            raise CheckFailed(f"not served as it should be: {'; '.join(failed)}")

    def _refresh_refs(self, wait: float) -> None:
        """Resolves the watched refs; while the registry is down, keeps the last known versions."""
        try:
            self._watcher.next_changes(0.0 if self.is_registry_down else wait)
            self._check_epoch()
            meant = self._generations.current(self._watcher.versions)
            self._lost.update(self._deps.state_file.state.meant, meant)
        except (*UNREACHABLE, PermissionDenied) as error:
            self._status.note_down(error)
            return
        self._status.note_answer()
        self._deps.state_file.state.meant = meant
        self._deps.state_file.save_if_possible()

    def _check_epoch(self) -> None:
        """After a restore of the registry, sends it the recalls that it may have lost, then rereads
        everything. If it does not accept them, each later pass tries again."""
        epoch, state = self._watcher.epoch, self._deps.state_file.state
        if epoch is None or epoch == state.epoch:
            return
        was_known = state.epoch is not None
        if not self._status.is_accepted(lambda: self._reporter.resend_recalls(epoch)):
            return
        if was_known:
            self._deps.log("the registry was restored from a backup; reading everything again")
        self._watcher.reset()
        self._watcher.next_changes(0.0)

    def _list_checked(self) -> tuple[EngineAdapter, ...]:
        """The loaded adapters. If the engine no longer serves the base for which they were checked, this
        worker's adapters are unloaded first, and loaded again if they fit."""
        inspection = self._inspection
        loaded = inspection.list_adapters(is_registry_down=self.is_registry_down)
        is_done = True
        if inspection.is_base_changed and (plan := plan_actions((), self._actual(loaded), None)).actions:
            self._deps.log("the engine serves a different base than before; its adapters are checked again")
            is_done = self._execute(plan)
            loaded = self._deps.engine.list_adapters()
        if is_done and not self.is_registry_down:
            inspection.accept_base()
        return loaded

    def _note_names(
        self, loaded: Sequence[EngineAdapter], plan: FollowPlan, after: Sequence[EngineAdapter]
    ) -> None:
        """Notes which names the engine must list in the next pass: those that it has now, and those that it
        lost during this pass."""
        unloaded = {one.actual.served_as for one in plan.actions if isinstance(one, UnloadAction)}
        had = {one.name for one in loaded if self._is_ours(one.name)} - unloaded
        self._inspection.note_names(had | {one.name for one in after})

    def _converge_plan(self, loaded: Sequence[EngineAdapter]) -> FollowPlan:
        """Plans and reports until the registry knows of every planned load and its reply does not change the
        plan. So the registry knows which workers have a version before they load it."""
        for _ in range(_MAX_REPLANS):
            plan = self._plan(loaded)
            pending = pending_loads(plan)
            if self.is_registry_down:
                break
            if pending.keys() <= set(self._deps.state_file.state.confirmed):
                return plan
            before = self._reply
            self._report(loaded, pending=pending, without_slot=plan.without_slot)
            is_same_reply = (before.turns, before.withdrawn) == (self._reply.turns, self._reply.withdrawn)
            # A report may have no room for all planned loads; the others follow in the next pass.
            if not self.is_registry_down and is_same_reply:
                return confirmed_only(plan, set(self._deps.state_file.state.confirmed))
        state = self._deps.state_file.state
        confirmed = set(state.confirmed) if self._inspection.is_same_as_served else set()
        return confirmed_only(self._plan(loaded), confirmed)

    def _plan(self, loaded: Sequence[EngineAdapter]) -> FollowPlan:
        self._recalls.update(self._deps.state_file.state.meant, self._reply.withdrawn, loaded)
        self._unanswered.accept_late_loads(self._desired.all_targets(self._reply.turns), loaded)
        desired = self._desired.compute(self._reply.turns)
        self._deps.engine.end_suspensions({one.served_as for one in desired})
        return plan_actions(
            desired, self._actual(loaded), self._settings.most_loaded, self._recalls.withdrawn
        )

    def _actual(self, loaded: Sequence[EngineAdapter]) -> list[ActualAdapter]:
        return [ActualAdapter(one.name, one.digest, self._is_ours(one.name)) for one in loaded]

    def _is_ours(self, name: str) -> bool:
        """Whether this worker loaded the name, or watches a pattern that matches the name."""
        return name in self._deps.state_file.state.ours or any(
            pattern.matches_ref(name) for pattern in self._patterns
        )

    def _execute(self, plan: FollowPlan) -> bool:
        """Executes the plan; returns whether all succeeded. Stops early if a recall arrives, or after a load
        that the engine did not answer: aliases may have moved meanwhile. Raises an error if the engine or the
        registry does not answer."""
        deps = self._deps
        executor = PlanExecutor(
            deps.registry,
            deps.engine,
            deps.cache,
            deps.state_file,
            None if self.is_registry_down else self._inspection.profile,
            deps.log,
        )
        self._failures.begin()
        for action in plan.actions:
            if self._is_recall_new():
                return False
            key = (
                None
                if isinstance(action, UnloadAction)
                else (action.desired.served_as, action.desired.digest)
            )
            has_room = len(deps.engine.list_adapters()) < self._settings.most_loaded
            try:
                with self._unanswered.attempt(action):
                    executor.apply(action, has_room)
            except AdaptryError as error:
                self._failures.record(key, error, is_registry_down=self.is_registry_down)
                if not isinstance(action, UnloadAction) and isinstance(error, EngineTimeout):
                    self._unanswered.note(action.desired.served_as, action.desired.version)
                    return False
            else:
                if key:
                    self._backoff.record_success(key)
        return not self._failures.end()

    def _is_recall_new(self) -> bool:
        """Whether a recall has arrived since the plan was made. The next pass begins with it."""
        return any(one.digest not in self._recalls.withdrawn for one in self._reply.withdrawn)

    def _note_residency(
        self,
        loaded: Sequence[EngineAdapter] | None,
        without_slot: Sequence[DesiredAdapter] = (),
        *,
        is_settled: bool,
    ) -> None:
        """Publishes the state after a pass; `loaded` is None if the engine does not answer."""
        before, state = self.residency, self._deps.state_file.state
        self._last_use.retain({*state.meant, *(one.name for one in loaded or ())})
        self.residency = Residency(
            engine=self._settings.engine,
            versions=loaded_versions(loaded or (), state.ours, self._deps.engine.usage(), self._last_use),
            slots=self._settings.slots,
            slots_used=len(loaded or ()),
            open_recalls=len(self._reply.withdrawn),
            problems=self._problems(loaded, without_slot),
            is_engine_up=loaded is not None,
            is_registry_up=not self.is_registry_down,
            registry_answered_at=before.registry_answered_at if self.is_registry_down else time.time(),
            is_settled=before.is_settled or is_settled,
        )

    def _check_error_rates(self, loaded: Sequence[EngineAdapter]) -> None:
        """Records a failure for each version of a rollout whose requests fail too often on this engine."""
        turns = {f"{one.name}@{one.alias}": one.digest for one in self._reply.turns}
        for one in loaded:
            if one.digest and turns.get(one.name) == one.digest:
                key = (one.name, one.digest)
                if reason := self._backoff.check_error_rate(key, self._deps.engine.request_counts()):
                    self._backoff.record_failure(key, reason)

    def _finish_pass(self, loaded: Sequence[EngineAdapter], plan: FollowPlan) -> None:
        """Releases cached files that nothing uses, and reports the actual state."""
        release_unused(self._deps.cache, self._deps.engine, loaded)
        self._report(loaded, without_slot=plan.without_slot)
        self._recalls.update(self._deps.state_file.state.meant, self._reply.withdrawn, loaded)
        self._recalls.delete_files(loaded)
        if not self._reply.withdrawn:
            return
        ended = self._unanswered.without_pending(self._reply.withdrawn, loaded)
        if dropped := self._recalls.confirm_dropped(ended, loaded):
            self._report(loaded, dropped=dropped, without_slot=plan.without_slot)
            self._deps.log(
                f"dropped {', '.join(f'{one.name} {one.digest.brief}' for one in dropped)}:"
                " this worker no longer serves it"
            )

    def _report(
        self,
        loaded: Sequence[EngineAdapter] | None,
        *,
        pending: Mapping[ServedVersion, VersionInfo] = NO_LOADS,
        dropped: Sequence[DroppedAdapter] = (),
        without_slot: Sequence[DesiredAdapter] = (),
    ) -> None:
        """Reports the actual state, unless the registry is down."""
        now = WorkerSnapshot(
            self._inspection.info,
            self._inspection.base_id,
            self._watcher.seq,
            loaded,
            pending,
            dropped,
            self._problems(loaded, without_slot),
        )
        try:
            self._status.is_accepted(lambda: self._reporter.report(now))
        except UNREACHABLE as error:
            self._status.note_down(error)

    def _problems(
        self, loaded: Sequence[EngineAdapter] | None, without_slot: Sequence[DesiredAdapter]
    ) -> dict[str, str]:
        """Each name that is not served as desired, with the reason, most serious first."""
        found = self._failures.transient | self._generations.refused | self._lost.problems
        found |= target_problems(self._desired, self._desired.all_targets(self._reply.turns))
        return ranked_problems(found, loaded or (), without_slot, self._settings.most_loaded)
