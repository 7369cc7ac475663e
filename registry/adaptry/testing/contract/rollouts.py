"""Promises about rollouts: a version replaces another, worker by worker, and stops after a failure."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adaptry.core.errors import Conflict, NotFound, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.rollouts import RolloutChange, RolloutInfo, RolloutPlan
from adaptry.registry.workers import WorkerGoneRequest
from adaptry.testing.contract.fixtures import ADA, RON, TONE, ContractFixtures, MakeLora, MakeRegistry
from adaptry.testing.contract.worker_reports import (
    GUS,
    make_resident,
    push_two,
    revoke,
    send_report,
)


class RolloutsContract(ContractFixtures):
    """`rollouts.start`, `rollouts`, `rollouts.change`, and the assignments in replies to reports."""

    def test_a_rollout_reaches_some_workers_then_more_and_then_moves_the_alias(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        ada, gus = make_registry(ADA), make_registry(GUS)
        fleet = [f"gpu-{number}" for number in range(4)]
        begun = ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(25, 50)))
        assert (begun.number, begun.was_number, begun.percent, begun.stage) == (2, 1, 25, "running")

        def turns() -> set[str]:
            for worker in fleet:
                send_report(gus, make_resident(first), worker=worker)
            return {worker for worker in fleet if send_report(gus, make_resident(first), worker=worker).turns}

        quarter = turns()
        assert len(quarter) == 1
        assert turns() == quarter
        half = advance(ada, begun)
        assert (half.percent, half.stage) == (50, "running")
        assert quarter < turns()
        assert len(turns()) == 2
        done = advance(ada, half)
        assert (done.percent, done.stage) == (100, "done")
        assert turns() == set()
        (alias,) = ada.aliases.list(TONE)
        assert (alias.number, alias.generation) == (2, 2)
        kinds = [event.kind for event in ada.adapters.history(TONE).items[:4]]
        assert kinds == ["rollout.finished", "alias.moved", "rollout.advanced", "rollout.started"]
        assert ada.rollouts.list(TONE) == (done,)

    def test_a_worker_learns_which_version_to_serve_instead(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        make_registry(ADA).rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,)))
        (turn,) = send_report(make_registry(GUS), make_resident(first)).turns
        assert (turn.name, turn.alias, turn.digest, turn.number) == (TONE, "prod", second.digest, 2)
        assert send_report(make_registry(GUS), make_resident(first), names=("acme/tone@staging",)).turns == ()

    def test_a_failure_stops_it_and_is_shown_with_its_reason(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        make_registry(ADA).rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,)))
        failed = make_resident(second, "failed", reason="the engine refused it: rank 64")
        assert send_report(make_registry(GUS), make_resident(first), failed).turns == ()
        (stopped,) = make_registry(ADA).rollouts.list(TONE)
        assert stopped.stage == "stopped"
        assert stopped.reason == "gpu-1 reports: the engine refused it: rank 64"
        assert make_registry(ADA).adapters.history(TONE).items[0].kind == "rollout.stopped"
        assert make_registry(ADA).aliases.list(TONE)[0].number == 1

    def test_a_failure_of_another_version_or_name_stops_nothing(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        make_registry(ADA).rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,)))
        send_report(make_registry(GUS), make_resident(first, "failed"))
        send_report(make_registry(GUS), make_resident(second, "failed", served_as="acme/tone@other"))
        assert make_registry(ADA).rollouts.list(TONE)[0].stage == "running"

    def test_a_rollout_advances_once_all_workers_of_the_step_serve_the_version(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        ada, gus = make_registry(ADA), make_registry(GUS)
        begun = ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,), interval=1))
        while (datetime.now(UTC) - begun.step_at).total_seconds() < 1.1:
            send_report(gus, make_resident(first), make_resident(second, "loading"))
        assert ada.rollouts.list(TONE)[0].stage == "running"
        send_report(gus, make_resident(second))
        send_report(gus, make_resident(second))
        assert ada.rollouts.list(TONE)[0].stage == "done"
        assert ada.aliases.list(TONE)[0].number == 2

    def test_a_rollout_waits_for_a_worker_whose_engine_stopped_answering_with_the_version(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        _, second = push_two(make_registry(ADA), lora)
        ada, gus = make_registry(ADA), make_registry(GUS)
        begun = ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,), interval=1))
        send_report(gus, make_resident(second))
        while (datetime.now(UTC) - begun.step_at).total_seconds() < 1.1:
            send_report(gus, engine_answers=False)
        send_report(gus, engine_answers=False)
        assert ada.rollouts.list(TONE)[0].stage == "running"
        send_report(gus, make_resident(second))
        assert ada.rollouts.list(TONE)[0].stage == "done"

    def test_no_other_worker_takes_the_place_of_one_that_fell_silent_with_the_version(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        ada, gus = make_registry(ADA), make_registry(GUS)
        fleet = ("gpu-1", "gpu-2")
        for worker in fleet:
            send_report(gus, make_resident(first), worker=worker)
        ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,)))
        (canary,) = (one for one in fleet if send_report(gus, make_resident(first), worker=one).turns)
        (other,) = {*fleet} - {canary}
        send_report(gus, make_resident(second), worker=canary, lease=1)
        while not ada.workers.get(canary).is_lost:  # a lease depends on the registry's own clock
            assert send_report(gus, make_resident(first), worker=other).turns == ()
        assert send_report(gus, make_resident(first), worker=other).turns == ()
        gus.workers.declare_gone(canary, WorkerGoneRequest(reason="the node was scrapped"))
        assert send_report(gus, make_resident(first), worker=other).turns

    def test_an_alias_that_someone_else_moved_is_left_alone(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        _, second = push_two(make_registry(ADA), lora)
        third = push(make_registry(ADA), lora(3), TONE).version
        ada = make_registry(ADA)
        begun = ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,)))
        ada.aliases.move(TONE, "prod", third.digest, was=1)
        stopped = advance(ada, begun)
        assert (stopped.stage, ada.aliases.list(TONE)[0].number) == ("stopped", 3)
        assert stopped.reason == "acme/tone@prod was moved to version 3 in the meantime"

    def test_a_recalled_version_is_rolled_out_no_further(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        make_registry(ADA).rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,)))
        revoke(make_registry(ADA), second)
        assert send_report(make_registry(GUS), make_resident(first)).turns == ()
        assert make_registry(ADA).rollouts.list(TONE)[0].reason == "version 2 is revoked"

    def test_an_aborted_rollout_has_ended(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        first, second = push_two(make_registry(ADA), lora)
        ada = make_registry(ADA)
        begun = ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan())
        over = ada.rollouts.change(
            TONE, "prod", RolloutChange(to="abort", reason="too slow"), begun.generation
        )
        assert (over.stage, over.reason) == ("aborted", "too slow")
        assert send_report(make_registry(GUS), make_resident(first)).turns == ()
        with pytest.raises(NotFound, match="has no rollout"):
            advance(ada, over)
        assert ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan()).id != begun.id

    def test_a_rollout_changes_only_from_the_state_that_was_seen(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        _, second = push_two(make_registry(ADA), lora)
        ada = make_registry(ADA)
        begun = ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan())
        advance(ada, begun)
        with pytest.raises(Conflict, match=r"at 50 % .*look again"):
            advance(ada, begun)

    def test_an_invalid_rollout_is_refused(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        first, second = push_two(make_registry(ADA), lora)
        ada = make_registry(ADA)
        with pytest.raises(NotFound, match="no alias staging"):
            ada.rollouts.start(TONE, "staging", second.digest, RolloutPlan())
        with pytest.raises(Conflict, match="already"):
            ada.rollouts.start(TONE, "prod", first.digest, RolloutPlan())
        ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan())
        with pytest.raises(Conflict, match="abort that first"):
            ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan())
        for who in (GUS, RON):
            with pytest.raises(PermissionDenied):
                make_registry(who).rollouts.start(TONE, "prod", second.digest, RolloutPlan())
        revoke(ada, second)
        with pytest.raises(Conflict, match="is revoked"):
            ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan())

    def test_a_rollout_stops_when_its_starter_may_no_longer_move_the_alias(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        zed = make_registry(Identity.with_role("zed", "maintainer", ("acme",)))
        begun = zed.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(25, 50)))
        if "zed" not in {one.name for one in registry.principals.list().items}:
            registry.principals.create("user", "zed")
        registry.principals.set_disabled("zed", is_disabled=True)
        stopped = advance(make_registry(ADA), begun)
        assert (stopped.stage, stopped.percent) == ("stopped", 25)
        assert stopped.reason == "zed, who started the rollout, may no longer move acme/tone@prod"
        assert registry.aliases.list(TONE)[0].digest == first.digest


def advance(registry: Registry, seen: RolloutInfo) -> RolloutInfo:
    return registry.rollouts.change(TONE, "prod", RolloutChange(to="advance"), seen.generation)
