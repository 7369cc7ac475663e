"""Promises about workers: reports are known at once, theirs alone to make, and never believed for ever."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adaptry.core.errors import Conflict, NotFound, PermissionDenied
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, StateChange, VersionInfo
from adaptry.registry.rollouts import RolloutChange, RolloutInfo, RolloutPlan
from adaptry.registry.workers import (
    Condition,
    DroppedAdapter,
    ReportReply,
    ResidentReport,
    WorkerProblem,
    WorkerReport,
)
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

GUS = Identity("gus", "worker", ("acme",))
MEG = Identity("meg", "worker", ("acme", "evil"))
PROD = "acme/tone@prod"
SINCE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def make_resident(
    version: VersionInfo, condition: Condition = "serving", served_as: str = PROD, reason: str | None = None
) -> ResidentReport:
    return ResidentReport(
        name=version.name,
        digest=version.digest,
        served_as=served_as,
        condition=condition,
        since=SINCE,
        reason=reason,
    )


def send_report(
    registry: Registry,
    *residents: ResidentReport,
    worker: str = "gpu-1",
    names: tuple[str, ...] = (PROD,),
    dropped: tuple[VersionInfo, ...] = (),
    lease: int = 600,
    seen: int | None = None,
) -> ReportReply:
    return registry.workers.report(
        WorkerReport(
            worker=worker,
            engine="vllm",
            version="0.33.0",
            base="org/tiny",
            slots=4,
            lease=lease,
            seen=seen,
            names=names,
            residents=residents,
            dropped=tuple(DroppedAdapter(name=one.name, digest=one.digest) for one in dropped),
        )
    )


def revoke(registry: Registry, version: VersionInfo) -> None:
    change = StateChange(state="revoked", reason="for a test")
    registry.versions.set_state(version.name, version.digest, change, version.state_generation)


class WorkersContract(ContractFixtures):
    """`report`, `worker`, `workers`, `workers.forget` and `residents`."""

    def test_what_a_worker_has_is_shown_with_the_version_and_with_the_worker(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        told = send_report(make_registry(GUS), make_resident(first), make_resident(second, "loading"), seen=3)
        assert told.seq > 3
        assert (told.withdrawn, told.turns, told.unknown) == ((), (), ())
        found = make_registry(RON).workers.get("gpu-1")
        assert (found.owner, found.engine, found.version, found.base) == ("gus", "vllm", "0.33.0", "org/tiny")
        assert (found.slots, found.seen, found.is_lost, found.is_answering) == (4, 3, False, True)
        assert [(one.number, one.condition, one.served_as) for one in found.residents] == [
            (1, "serving", PROD),
            (2, "loading", PROD),
        ]
        assert make_registry(RON).workers.list().items == (found,)
        (one,) = make_registry(RON).workers.residents(Ref.parse("acme/tone@1"))
        assert (one.worker, one.since, one.may_be_served) == ("gpu-1", SINCE, True)
        assert make_registry(RON).workers.residents(Ref.parse("acme/tone@2"))[0].may_be_served

    def test_what_a_worker_no_longer_reports_is_unloaded_and_stays_known(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        send_report(make_registry(GUS), make_resident(first))
        send_report(make_registry(GUS), make_resident(second))
        (gone,) = make_registry(RON).workers.residents(Ref.parse("acme/tone@1"))
        assert (gone.condition, gone.may_be_served, gone.dropped_at) == ("unloaded", False, None)
        assert gone.ended_at is not None
        assert [one.number for one in make_registry(RON).workers.get("gpu-1").residents] == [2]
        send_report(make_registry(GUS), make_resident(first))
        (back,) = make_registry(RON).workers.residents(Ref.parse("acme/tone@1"))
        assert (back.condition, back.ended_at) == ("serving", None)

    def test_a_worker_whose_engine_does_not_answer_keeps_what_it_had(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        send_report(make_registry(GUS), make_resident(first))
        make_registry(GUS).workers.report(WorkerReport(worker="gpu-1", engine="vllm", residents=None))
        found = make_registry(RON).workers.get("gpu-1")
        assert not found.is_answering
        assert [one.condition for one in found.residents] == ["serving"]

    def test_the_same_report_again_only_renews(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        send_report(make_registry(GUS), make_resident(first), seen=1)
        before = make_registry(RON).workers.get("gpu-1")
        send_report(make_registry(GUS), make_resident(first), seen=2)
        after = make_registry(RON).workers.get("gpu-1")
        assert after.reported_at >= before.reported_at
        assert (after.seen, after.first_at) == (2, before.first_at)
        assert after.residents == before.residents

    def test_a_worker_is_told_to_drop_what_is_withdrawn_until_it_has(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        send_report(
            make_registry(GUS), make_resident(first), make_resident(second, served_as="acme/tone@staging")
        )
        send_report(make_registry(GUS), make_resident(second))
        revoke(make_registry(ADA), first)
        told = send_report(make_registry(GUS), make_resident(second))
        assert [(one.number, one.state) for one in told.withdrawn] == [(1, "revoked")]
        assert send_report(make_registry(GUS), make_resident(second), dropped=(first,)).withdrawn == ()
        (one,) = make_registry(RON).workers.residents(Ref.parse("acme/tone@1"))
        assert one.dropped_at is not None

    def test_what_is_still_served_is_not_dropped_whatever_is_said(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        revoke(make_registry(ADA), first)
        told = send_report(make_registry(GUS), make_resident(first), dropped=(first,))
        assert [one.number for one in told.withdrawn] == [1]
        (one,) = make_registry(RON).workers.residents(Ref.parse("acme/tone@1"))
        assert (one.dropped_at, one.may_be_served) == (None, True)

    def test_a_load_of_what_was_just_withdrawn_is_called_off(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        revoke(make_registry(ADA), first)
        told = send_report(make_registry(GUS), make_resident(first, "loading"))
        assert [one.digest for one in told.withdrawn] == [first.digest]

    def test_a_worker_that_is_not_heard_of_is_lost_and_not_clean(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        send_report(make_registry(GUS), make_resident(first), lease=1)
        seen = make_registry(RON).workers.get("gpu-1")
        while not seen.is_lost:  # a lease is a matter of the registry's own clock
            assert (datetime.now(UTC) - seen.reported_at).total_seconds() < 30
            seen = make_registry(RON).workers.get("gpu-1")
        (one,) = make_registry(RON).workers.residents(Ref.parse("acme/tone@1"))
        assert (one.is_lost, one.may_be_served) == (True, True)
        send_report(make_registry(GUS), make_resident(first))
        assert not make_registry(RON).workers.get("gpu-1").is_lost

    def test_only_a_workers_token_reports(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        for who in (ADA, RON):
            with pytest.raises(PermissionDenied, match="--role worker"):
                send_report(make_registry(who), make_resident(first))
        with pytest.raises(PermissionDenied):
            push(make_registry(GUS), lora(3), TONE)
        with pytest.raises(PermissionDenied):
            make_registry(GUS).aliases.move(TONE, "prod", first.digest, was=None)

    def test_each_owner_names_its_own_workers(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        first, second = push_two(make_registry(ADA), lora)
        send_report(
            make_registry(MEG), make_resident(second)
        )  # whoever comes first has the name only for itself
        send_report(make_registry(GUS), make_resident(first))
        assert [one.number for one in make_registry(GUS).workers.get("gpu-1").residents] == [1]
        assert [one.number for one in make_registry(MEG).workers.get("gpu-1").residents] == [2]
        assert [one.number for one in make_registry(RON).workers.get("gpu-1", "gus").residents] == [1]
        with pytest.raises(
            Conflict, match="several owners have a worker gpu-1: gus, meg; name one with --owner"
        ):
            make_registry(RON).workers.get("gpu-1")
        with pytest.raises(NotFound, match="no worker 'gpu-1'"):
            make_registry(RON).workers.get("gpu-1", "ron")
        pages = make_registry(LOCAL).workers.list(limit=1)
        rest = make_registry(LOCAL).workers.list(pages.next, limit=1)
        assert [(one.worker, one.owner) for one in (*pages.items, *rest.items)] == [
            ("gpu-1", "gus"),
            ("gpu-1", "meg"),
        ]
        assert [one.owner for one in make_registry(RON).workers.residents(Ref.parse("acme/tone@1"))] == [
            "gus"
        ]
        make_registry(LOCAL).workers.forget("gpu-1", "meg")
        assert make_registry(RON).workers.get("gpu-1").owner == "gus"

    def test_nothing_is_kept_of_a_version_that_the_worker_may_not_see(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        foreign = Identity("fay", "worker", ("evil",))
        told = send_report(make_registry(foreign), make_resident(first), worker="evil-1")
        assert told.unknown == (first.digest,)
        assert make_registry(RON).workers.residents(Ref.parse("acme/tone@1")) == ()
        with pytest.raises(NotFound):
            make_registry(EVE).workers.residents(Ref.parse("acme/tone@1"))

    def test_a_worker_is_shown_to_who_may_read_what_it_has(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        other = push(make_registry(EVE), lora(5), AdapterName.parse("evil/voice")).version
        send_report(
            make_registry(MEG),
            make_resident(first),
            make_resident(other, served_as="evil/voice@prod"),
            worker="both",
        )
        send_report(make_registry(GUS), make_resident(first), worker="acme-1")
        send_report(make_registry(GUS), worker="idle")

        def seen(who: Identity) -> dict[str, list[str]]:
            items = make_registry(who).workers.list().items
            return {one.worker: [str(each.name) for each in one.residents] for one in items}

        assert seen(EVE) == {"both": ["evil/voice"]}
        assert seen(RON) == {"acme-1": ["acme/tone"], "both": ["acme/tone"]}
        assert set(seen(GUS)) == {"acme-1", "both", "idle"}
        assert set(seen(LOCAL)) == {"acme-1", "both", "idle"}
        with pytest.raises(NotFound, match="no worker 'acme-1'"):
            make_registry(EVE).workers.get("acme-1")
        assert make_registry(LOCAL).workers.list(limit=2).next is not None

    def test_a_worker_is_forgotten_by_its_owner_or_an_administrator(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        send_report(make_registry(GUS), make_resident(first))
        with pytest.raises(PermissionDenied):
            make_registry(ADA).workers.forget("gpu-1")
        with pytest.raises(NotFound):
            make_registry(EVE).workers.forget("gpu-1")
        make_registry(LOCAL).workers.forget("gpu-1")
        assert make_registry(RON).workers.residents(Ref.parse("acme/tone@1")) == ()
        with pytest.raises(NotFound):
            make_registry(LOCAL).workers.forget("gpu-1")

    def test_what_is_served_is_not_deleted(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        make_registry(ADA).aliases.remove(TONE, "prod", was=1)
        send_report(make_registry(GUS), make_resident(first))
        with pytest.raises(Conflict, match="loaded by gpu-1"):
            make_registry(ADA).adapters.delete(TONE)
        send_report(make_registry(GUS))
        make_registry(ADA).adapters.delete(TONE)

    def test_a_worker_says_what_it_cannot_serve(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        push_two(make_registry(ADA), lora)
        trouble = WorkerProblem(served_as=PROD, reason="rank 64 is above the server's 16")
        make_registry(GUS).workers.report(WorkerReport(worker="gpu-1", engine="vllm", troubles=(trouble,)))
        assert make_registry(GUS).workers.get("gpu-1").troubles == (trouble,)


class RolloutsContract(ContractFixtures):
    """`rollouts.start`, `rollouts`, `rollouts.change`, and the turns that reports are answered with."""

    def test_a_rollout_reaches_a_part_of_the_workers_then_more_then_the_alias(
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
        assert kinds == ["rollout.done", "alias.moved", "rollout.advanced", "rollout.started"]
        assert ada.rollouts.list(TONE) == (done,)

    def test_a_worker_learns_which_version_to_serve_instead(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        make_registry(ADA).rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,)))
        (turn,) = send_report(make_registry(GUS), make_resident(first)).turns
        assert (turn.name, turn.alias, turn.digest, turn.number) == (TONE, "prod", second.digest, 2)
        assert send_report(make_registry(GUS), make_resident(first), names=("acme/tone@staging",)).turns == ()

    def test_a_failure_stops_it_and_says_why(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
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

    def test_it_goes_on_by_itself_only_once_everyone_whose_turn_it_is_serves_it(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        ada, gus = make_registry(ADA), make_registry(GUS)
        begun = ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,), every=1))
        while (datetime.now(UTC) - begun.step_at).total_seconds() < 1.1:
            send_report(gus, make_resident(first), make_resident(second, "loading"))
        assert ada.rollouts.list(TONE)[0].stage == "running"
        send_report(gus, make_resident(second))
        send_report(gus, make_resident(second))
        assert ada.rollouts.list(TONE)[0].stage == "done"
        assert ada.aliases.list(TONE)[0].number == 2

    def test_an_alias_that_was_moved_meanwhile_is_left_alone(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        _, second = push_two(make_registry(ADA), lora)
        third = push(make_registry(ADA), lora(3), TONE).version
        ada = make_registry(ADA)
        begun = ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,)))
        ada.aliases.move(TONE, "prod", third.digest, was=1)
        stopped = advance(ada, begun)
        assert (stopped.stage, ada.aliases.list(TONE)[0].number) == ("stopped", 3)
        assert stopped.reason == "acme/tone@prod was moved to version 3 meanwhile"

    def test_a_version_that_is_recalled_is_rolled_out_no_further(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        make_registry(ADA).rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50,)))
        revoke(make_registry(ADA), second)
        assert send_report(make_registry(GUS), make_resident(first)).turns == ()
        assert make_registry(ADA).rollouts.list(TONE)[0].reason == "version 2 is revoked"

    def test_an_aborted_one_is_over(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        first, second = push_two(make_registry(ADA), lora)
        ada = make_registry(ADA)
        begun = ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan())
        over = ada.rollouts.change(
            TONE, "prod", RolloutChange(to="abort", reason="too slow"), begun.generation
        )
        assert (over.stage, over.reason) == ("aborted", "too slow")
        assert send_report(make_registry(GUS), make_resident(first)).turns == ()
        with pytest.raises(NotFound, match="not being rolled out"):
            advance(ada, over)
        assert ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan()).id != begun.id

    def test_it_changes_only_from_where_it_was_seen(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        _, second = push_two(make_registry(ADA), lora)
        ada = make_registry(ADA)
        begun = ada.rollouts.start(TONE, "prod", second.digest, RolloutPlan())
        advance(ada, begun)
        with pytest.raises(Conflict, match=r"at 50 % .*look again"):
            advance(ada, begun)

    def test_what_makes_no_sense_is_refused(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
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


def push_two(registry: Registry, lora: MakeLora) -> tuple[VersionInfo, VersionInfo]:
    """Two versions of `acme/tone`, with `prod` at the first."""
    first = push(registry, lora(1), TONE, options=PushOptions(alias="prod")).version
    return first, push(registry, lora(2), TONE).version


def advance(registry: Registry, seen: RolloutInfo) -> RolloutInfo:
    return registry.rollouts.change(TONE, "prod", RolloutChange(to="advance"), seen.generation)
