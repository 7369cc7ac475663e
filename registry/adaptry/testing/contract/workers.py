"""Promises about workers: reports are visible at once, made only by the worker's own token, and expire."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.access.grants import Limit
from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.recall_status import recall_status
from adaptry.operations.transfer import push
from adaptry.registry.base_info import BaseEdit
from adaptry.registry.workers import WorkerGoneRequest, WorkerProblem, WorkerReport
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry
from adaptry.testing.contract.worker_reports import (
    GUS,
    MEG,
    PROD,
    SINCE,
    make_resident,
    push_two,
    revoke,
    send_report,
)
from adaptry.testing.samples import tiny_base


class WorkersContract(ContractFixtures):
    """`report`, `worker`, `workers`, `workers.forget`, `residents` and `resident_summary`."""

    def test_loaded_versions_are_shown_with_the_version_and_with_the_worker(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        told = send_report(
            make_registry(GUS), make_resident(first), make_resident(second, "loading"), last_event=3
        )
        assert told.seq > 3
        assert (told.withdrawn, told.turns, told.unknown) == ((), (), ())
        found = make_registry(RON).workers.get("gpu-1")
        assert (found.owner, found.engine, found.version, found.base) == ("gus", "vllm", "0.33.0", "org/tiny")
        assert (found.slots, found.last_event, found.is_lost, found.is_answering) == (4, 3, False, True)
        assert [(one.number, one.condition, one.served_as) for one in found.residents] == [
            (1, "serving", PROD),
            (2, "loading", PROD),
        ]
        assert make_registry(RON).workers.list().items == (found,)
        (one,) = make_registry(RON).workers.residents(Ref.parse("acme/tone@1"))
        assert (one.worker, one.since, one.may_be_served) == ("gpu-1", SINCE, True)
        assert make_registry(RON).workers.residents(Ref.parse("acme/tone@2"))[0].may_be_served

    def test_a_summary_counts_the_workers_with_a_version_and_begins_with_those_that_may_serve_it(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, second = push_two(make_registry(ADA), lora)
        ref = Ref.parse("acme/tone@1")
        nobody = make_registry(RON).workers.resident_summary(ref)
        assert (nobody.total, nobody.may_serve, nobody.closed, nobody.first) == (0, 0, 0, ())
        for worker in ("a", "b", "c", "d"):
            send_report(make_registry(GUS), make_resident(first), worker=worker)
        send_report(make_registry(GUS), make_resident(second), worker="a")
        revoke(make_registry(ADA), first)
        send_report(make_registry(GUS), worker="b", dropped=(first,))
        found = make_registry(RON).workers.resident_summary(ref)
        assert (found.total, found.may_serve, found.closed) == (4, 2, 1)
        assert [one.worker for one in found.first] == ["c", "d", "a", "b"]
        listed = make_registry(RON).workers.residents(ref)
        assert sorted(found.first, key=lambda one: one.worker) == list(listed)
        assert found.may_serve == sum(one.may_be_served for one in listed)
        few = make_registry(RON).workers.resident_summary(ref, 1)
        assert (few.total, few.first) == (4, found.first[:1])
        named = make_registry(RON).workers.resident_summary(ref, served_as="another")
        assert (named.total, named.first) == (0, ())
        assert make_registry(RON).workers.resident_summary(ref, served_as=PROD) == found
        with pytest.raises(NotFound):
            make_registry(EVE).workers.resident_summary(ref)
        with pytest.raises(Invalid, match="1 to 200"):
            make_registry(RON).workers.resident_summary(ref, 0)

    def test_a_version_that_a_worker_no_longer_reports_is_recorded_as_unloaded(
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
        assert [one.is_answering for one in found.residents] == [False]
        assert (found.version, found.base) == ("0.33.0", "org/tiny")
        revoke(make_registry(ADA), first)
        status = recall_status(make_registry(RON), Ref.parse("acme/tone@1"))
        assert [(one.outcome, one.last, one.is_answering) for one in status.lines] == [
            ("unknown", "serving", False)
        ]
        assert not status.is_complete

    def test_a_worker_is_shown_with_the_registrys_name_of_its_base(
        self, make_registry: MakeRegistry, lora: MakeLora, tmp_path: Path
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        base = fingerprint(open_checkpoint(tiny_base(tmp_path / "tiny")))
        report = WorkerReport(worker="gpu-1", engine="vllm", base="/models/tiny", base_id=base.id)
        report = report.model_copy(update={"residents": (make_resident(first),)})
        make_registry(GUS).workers.report(report)
        unknown = make_registry(RON).workers.get("gpu-1")
        assert (unknown.base, unknown.base_name) == ("/models/tiny", None)
        make_registry(LOCAL).bases.put(base, ("org/tiny", "mirror/tiny"))
        assert make_registry(RON).workers.get("gpu-1") == unknown  # the base is private
        make_registry(LOCAL).bases.edit(base.id, BaseEdit(visibility="internal"))
        (known,) = make_registry(RON).workers.list().items
        assert (known.base, known.base_name, known.base_label) == (
            "/models/tiny",
            "mirror/tiny",
            "mirror/tiny",
        )
        make_registry(GUS).workers.report(report.model_copy(update={"base": "org/tiny"}))
        assert make_registry(RON).workers.get("gpu-1").base_name == "org/tiny"

    def test_repeating_a_report_only_renews_it(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        send_report(make_registry(GUS), make_resident(first), last_event=1)
        before = make_registry(RON).workers.get("gpu-1")
        send_report(make_registry(GUS), make_resident(first), last_event=2)
        after = make_registry(RON).workers.get("gpu-1")
        assert after.reported_at >= before.reported_at
        assert (after.last_event, after.first_at) == (2, before.first_at)
        renewed = {"reported_at": after.reported_at}
        assert after.residents == tuple(one.model_copy(update=renewed) for one in before.residents)

    def test_a_worker_is_instructed_to_drop_a_withdrawn_version_until_it_has_done_so(
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

    def test_a_version_that_is_still_served_does_not_count_as_dropped(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        revoke(make_registry(ADA), first)
        told = send_report(make_registry(GUS), make_resident(first), dropped=(first,))
        assert [one.number for one in told.withdrawn] == [1]
        (one,) = make_registry(RON).workers.residents(Ref.parse("acme/tone@1"))
        assert (one.dropped_at, one.may_be_served) == (None, True)

    def test_loading_a_withdrawn_version_is_cancelled(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        revoke(make_registry(ADA), first)
        told = send_report(make_registry(GUS), make_resident(first, "loading"))
        assert [one.digest for one in told.withdrawn] == [first.digest]

    def test_a_worker_that_stops_reporting_may_still_serve_its_versions(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        send_report(make_registry(GUS), make_resident(first), lease=1)
        seen = make_registry(RON).workers.get("gpu-1")
        while not seen.is_lost:  # a lease depends on the registry's own clock
            assert (datetime.now(UTC) - seen.reported_at).total_seconds() < 30
            seen = make_registry(RON).workers.get("gpu-1")
        (one,) = make_registry(RON).workers.residents(Ref.parse("acme/tone@1"))
        assert (one.is_lost, one.may_be_served) == (True, True)
        revoke(make_registry(ADA), first)
        status = recall_status(make_registry(RON), Ref.parse("acme/tone@1"))
        assert [(line.outcome, line.last) for line in status.lines] == [("unknown", "serving")]
        assert not status.is_complete
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
        send_report(make_registry(MEG), make_resident(second))  # the first owner of a name has it exclusively
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
        send_report(make_registry(MEG))
        make_registry(LOCAL).workers.forget("gpu-1", "meg")
        assert make_registry(RON).workers.get("gpu-1").owner == "gus"

    def test_versions_hidden_from_a_worker_are_not_recorded(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        foreign = Identity.with_role("fay", "worker", ("evil",))
        told = send_report(make_registry(foreign), make_resident(first), worker="evil-1")
        assert told.unknown == (first.digest,)
        assert make_registry(RON).workers.residents(Ref.parse("acme/tone@1")) == ()
        with pytest.raises(NotFound):
            make_registry(EVE).workers.residents(Ref.parse("acme/tone@1"))

    def test_a_worker_is_visible_to_readers_of_its_versions(
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

    def test_a_worker_is_forgotten_by_its_owner_or_an_administrator_once_it_serves_nothing(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        send_report(make_registry(GUS), make_resident(first))
        with pytest.raises(PermissionDenied):
            make_registry(ADA).workers.forget("gpu-1")
        with pytest.raises(NotFound):
            make_registry(EVE).workers.forget("gpu-1")
        reading = make_registry(replace(GUS, limit=Limit(("viewer",))))
        with pytest.raises(PermissionDenied, match="may not forget gpu-1; its own token"):
            reading.workers.forget("gpu-1")
        with pytest.raises(PermissionDenied, match="may not declare gpu-1 gone; its own token"):
            reading.workers.declare_gone("gpu-1", WorkerGoneRequest(reason="scrapped"))
        with pytest.raises(Conflict, match="may still serve versions that it reported"):
            make_registry(LOCAL).workers.forget("gpu-1")
        send_report(make_registry(GUS))
        make_registry(LOCAL).workers.forget("gpu-1")
        assert make_registry(RON).workers.residents(Ref.parse("acme/tone@1")) == ()
        with pytest.raises(NotFound):
            make_registry(LOCAL).workers.forget("gpu-1")

    def test_a_worker_that_a_recall_waits_for_is_not_forgotten(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        send_report(make_registry(GUS), make_resident(first))
        send_report(make_registry(GUS))
        revoke(make_registry(ADA), first)
        with pytest.raises(
            Conflict, match="acme/tone@1, which is revoked, and did not prove that it dropped"
        ):
            make_registry(LOCAL).workers.forget("gpu-1")
        send_report(make_registry(GUS), dropped=(first,))
        make_registry(LOCAL).workers.forget("gpu-1")

    def test_a_silent_worker_is_declared_gone_with_a_reason_until_it_reports_again(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        ref, why = Ref.parse("acme/tone@1"), WorkerGoneRequest(reason="the machine was scrapped")
        send_report(make_registry(GUS), make_resident(first))
        with pytest.raises(Conflict, match="gpu-1 reported within its lease"):
            make_registry(LOCAL).workers.declare_gone("gpu-1", why)
        make_registry(GUS).workers.report(WorkerReport(worker="gpu-1", engine="vllm", residents=None))
        with pytest.raises(PermissionDenied, match="may not declare gpu-1 gone"):
            make_registry(ADA).workers.declare_gone("gpu-1", why)
        with pytest.raises(NotFound):
            make_registry(EVE).workers.declare_gone("gpu-1", why)
        found = make_registry(LOCAL).workers.declare_gone("gpu-1", why, "gus")
        assert found.gone and (found.gone.by, found.gone.reason) == ("local", "the machine was scrapped")
        revoke(make_registry(ADA), first)
        status = recall_status(make_registry(RON), ref)
        assert [(one.outcome, one.gone, one.is_proved) for one in status.lines] == [
            ("gone", found.gone, False)
        ]
        assert status.is_complete
        assert not make_registry(RON).workers.residents(ref)[0].may_be_served
        with pytest.raises(Conflict, match="its record is part of that recall"):
            make_registry(LOCAL).workers.forget("gpu-1")

        send_report(make_registry(GUS), make_resident(first))
        status = recall_status(make_registry(RON), ref)
        assert [one.outcome for one in status.lines] == ["serving"]
        assert not status.is_complete
        assert make_registry(RON).workers.get("gpu-1").gone is None
        told = [one.kind for one in make_registry(LOCAL).events.read(0, 200).items]
        assert [kind for kind in told if kind.startswith("worker.")] == ["worker.gone", "worker.returned"]

    def test_a_served_version_is_not_deleted(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        first, _ = push_two(make_registry(ADA), lora)
        make_registry(ADA).aliases.remove(TONE, "prod", was=1)
        send_report(make_registry(GUS), make_resident(first))
        with pytest.raises(Conflict, match="loaded by gpu-1"):
            make_registry(ADA).adapters.delete(TONE)
        send_report(make_registry(GUS))
        make_registry(ADA).adapters.delete(TONE)

    def test_a_worker_reports_versions_that_it_cannot_serve(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push_two(make_registry(ADA), lora)
        problem = WorkerProblem(served_as=PROD, reason="rank 64 is above the server's 16")
        make_registry(GUS).workers.report(
            WorkerReport(worker="gpu-1", engine="vllm", problems=(problem,), max_age=86_400)
        )
        found = make_registry(GUS).workers.get("gpu-1")
        assert (found.problems, found.max_age) == ((problem,), 86_400)
