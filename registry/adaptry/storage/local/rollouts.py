"""The rollouts role of a local registry: started and changed by people, advanced by workers' reports."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from adaptry.core.access.conditions import Facts
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, NotFound, Unavailable
from adaptry.core.gates.decision import refusal
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import STATE_RULES, require_alias_allowed
from adaptry.core.refs import AdapterName, Ref, parse_stored_alias
from adaptry.registry.rollouts import (
    RolloutChange,
    RolloutInfo,
    RolloutPlan,
    Rollouts,
    RolloutStage,
    choose_workers,
    is_due,
)
from adaptry.registry.workers import RolloutAssignment
from adaptry.storage.catalog import aliases, events, rollouts
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rights import rights_of_name
from adaptry.storage.catalog.versions import VersionRecord, to_record
from adaptry.storage.catalog.workers import WorkerRecord
from adaptry.storage.local.aliases import point_alias
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.gate_facts import Move
from adaptry.storage.local.gates import decide, obstacle, read_decided, write_decided

_EVENTS: Mapping[RolloutStage, str] = {
    "running": "rollout.advanced",
    "done": "rollout.finished",
    "stopped": "rollout.stopped",
    "aborted": "rollout.aborted",
}


Failures = Mapping[tuple[str, Digest], str]
"""Why a worker could not serve a version under a name."""


@dataclass(frozen=True, slots=True)
class _Transition:
    """The new step or end of a rollout, and its author."""

    stage: RolloutStage
    step: int
    by: str
    reason: str | None = None


@dataclass(frozen=True)
class LocalRollouts(Rollouts):
    """The rollouts of a local registry."""

    context: RegistryContext

    def start(self, name: AdapterName, alias: str, to: Digest, plan: RolloutPlan) -> RolloutInfo:
        parse_stored_alias(alias)

        def look(tx: Transaction) -> None:
            adapter = self.context.writable_adapter(tx, name, "alias.move", alias=alias)
            target = to_record(self.context.resolve(tx, Ref.of_revision(name, to)))
            decide(self.context, tx, self._move(tx, adapter, alias, target, self.context.identity.name))

        read_decided(self.context, look)  # so that no other writer waits for the evaluation

        def begin(tx: Transaction) -> RolloutInfo:
            adapter = self.context.writable_adapter(tx, name, "alias.move", alias=alias)
            target = to_record(self.context.resolve(tx, Ref.of_revision(name, to)))
            return self.context.run_once(
                tx, RolloutInfo, lambda: self._start(tx, adapter, alias, target, plan)
            )

        return write_decided(self.context, begin)

    def _start(
        self, tx: Transaction, adapter: AdapterRecord, alias: str, target: VersionRecord, plan: RolloutPlan
    ) -> RolloutInfo:
        name, was = adapter.name, aliases.find(tx, adapter, alias)
        if was is None:
            raise NotFound(
                f"{name} has no alias {alias} to roll out; set it first: adaptry alias set {name}@VERSION"
                f" {alias}"
            )
        if was.digest == target.digest:
            raise Conflict(f"{name}@{alias} is already at version {target.number}")
        require_alias_allowed(alias, target.state, target.number)
        if going := rollouts.running(tx, adapter, alias):
            raise Conflict(
                f"{name}@{alias} is being rolled out to version {going.number} ({going.percent} %); abort"
                f" that first: adaptry rollout abort {name}@{alias}"
            )
        by = self.context.identity.name
        decision = decide(self.context, tx, self._move(tx, adapter, alias, target, by))
        if decision is not None and not decision.is_allowed:
            raise CheckFailed(refusal(decision))
        info = rollouts.begin(tx, adapter, alias, target, was, plan, self.context.clock(), by)
        self._note_rollout(tx, adapter, info, "rollout.started", by)
        return self._advance(tx, adapter, info, by, step=0) if info.percent == 100 else info

    def list(self, name: AdapterName) -> tuple[RolloutInfo, ...]:
        with self.context.catalog.read() as tx:
            return rollouts.of_adapter(tx, self.context.readable_adapter(tx, name))

    def change(self, name: AdapterName, alias: str, change: RolloutChange, was: int) -> RolloutInfo:
        return write_decided(self.context, lambda tx: self._change(tx, name, alias, change, was))

    def _change(
        self, tx: Transaction, name: AdapterName, alias: str, change: RolloutChange, was: int
    ) -> RolloutInfo:
        adapter = self.context.writable_adapter(tx, name, "alias.move", alias=alias)
        info = rollouts.running(tx, adapter, parse_stored_alias(alias))
        if info is None:
            raise NotFound(
                f"{name}@{alias} has no rollout; `adaptry rollout status {name}` shows earlier ones"
            )
        if info.generation != was:
            raise Conflict(
                f"the rollout of {name}@{alias} has changed since you read it (generation {was}): it is at"
                f" {info.percent} % (generation {info.generation}); look again and retry"
            )
        if change.to == "abort":
            return self._transition(
                tx,
                adapter,
                info,
                _Transition("aborted", info.step, self.context.identity.name, change.reason),
            )
        return self._advance(tx, adapter, info, self.context.identity.name, info.step + 1)

    def assignments(
        self, tx: Transaction, worker: WorkerRecord, names: Collection[str], failed: Failures
    ) -> tuple[RolloutAssignment, ...]:
        """Updates rollouts by a worker's report; returns those that the worker must follow."""
        assigned: list[RolloutAssignment] = []
        for adapter, info in rollouts.running_for_names(tx, names):
            if not self.context.identity.may_read(adapter.name, adapter.visibility):
                continue
            serving = {worker.label: None, **rollouts.serving(tx, info, self.context.clock())}
            info = self._advanced(tx, adapter, info, serving, worker.name, failed)
            if info.stage == "running" and worker.label in choose_workers(info.id, info.percent, serving):
                assigned.append(
                    RolloutAssignment(
                        name=adapter.name, alias=info.alias, digest=info.digest, number=info.number
                    )
                )
        return tuple(assigned)

    def _advanced(
        self,
        tx: Transaction,
        adapter: AdapterRecord,
        info: RolloutInfo,
        serving: Mapping[str, Digest | None],
        worker: str,
        failed: Failures,
    ) -> RolloutInfo:
        """The rollout after this report: stopped, advanced by a step, or unchanged."""
        by = info.started_by
        if failure := failed.get((f"{info.name}@{info.alias}", info.digest)):
            return self._transition(
                tx, adapter, info, _Transition("stopped", info.step, by, f"{worker} reports: {failure}")
            )
        if reason := self._obstacle(tx, adapter, info):
            return self._transition(tx, adapter, info, _Transition("stopped", info.step, by, reason))
        if is_due(info, self.context.clock(), serving):
            try:
                return self._advance(tx, adapter, info, by, info.step + 1)
            except Unavailable:  # the conditions could not be evaluated now; the next report tries again
                return info
        return info

    def _advance(
        self, tx: Transaction, adapter: AdapterRecord, info: RolloutInfo, by: str, step: int
    ) -> RolloutInfo:
        """Advances the rollout by a step; at 100 % the alias moves."""
        move = self._move(tx, adapter, info.alias, self._target(tx, info), info.started_by)
        if reason := self._obstacle(tx, adapter, info) or obstacle(self.context, tx, move):
            return self._transition(tx, adapter, info, _Transition("stopped", info.step, by, reason))
        if info.steps[step] < 100:
            return self._transition(tx, adapter, info, _Transition("running", step, by))
        point_alias(self.context, tx, move)
        return self._transition(tx, adapter, info, _Transition("done", step, by))

    def _obstacle(self, tx: Transaction, adapter: AdapterRecord, info: RolloutInfo) -> str | None:
        """The reason why a rollout cannot continue, if any."""
        found = aliases.find(tx, adapter, info.alias)
        if found is None or found.generation != info.alias_generation:
            where = f"to version {found.number}" if found else "away"
            return f"{info.name}@{info.alias} was moved {where} in the meantime"
        target = self._target(tx, info)
        if not STATE_RULES[target.state].allows_aliases:
            return f"version {info.number} is {target.state}"
        starter = rights_of_name(tx, info.started_by)
        facts = Facts(alias=info.alias, now=self.context.clock())
        if starter is not None and not starter.may("alias.move", info.name, facts):
            return f"{info.started_by}, who started the rollout, may no longer move {info.name}@{info.alias}"
        return None

    def _move(self, tx: Transaction, adapter: AdapterRecord, alias: str, to: VersionRecord, by: str) -> Move:
        return Move(adapter, alias, to, aliases.find(tx, adapter, alias), by)

    def _target(self, tx: Transaction, info: RolloutInfo) -> VersionRecord:
        return to_record(self.context.resolve(tx, Ref.of_revision(info.name, info.digest)))

    def _transition(
        self, tx: Transaction, adapter: AdapterRecord, info: RolloutInfo, move: _Transition
    ) -> RolloutInfo:
        rollouts.change(
            tx, info, step=move.step, stage=move.stage, reason=move.reason, at=self.context.clock()
        )
        changed = rollouts.get(tx, adapter, info.id)
        self._note_rollout(tx, adapter, changed, _EVENTS[move.stage], move.by)
        return changed

    def _note_rollout(
        self, tx: Transaction, adapter: AdapterRecord, info: RolloutInfo, kind: str, by: str
    ) -> None:
        detail = {
            "alias": info.alias,
            "percent": info.percent,
            "was": info.was_digest,
            "was_number": info.was_number,
            "to": info.digest,
            "generation": info.generation,
            "reason": info.reason,
        }
        events.record(
            tx, kind, at=self.context.clock(), by=by, adapter=adapter, number=info.number, detail=detail
        )
