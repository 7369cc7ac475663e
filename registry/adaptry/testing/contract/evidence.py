"""Promises about evidence: it is added with its file, attached to a digest, and withdrawn with a reason."""

from __future__ import annotations

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied
from adaptry.core.evidence.values import EvidenceFile, EvidenceValue
from adaptry.core.identity import LOCAL
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.evidence import EvidenceAddition, WithdrawalRequest
from adaptry.registry.interface import Registry
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

RESULTS = b'{"results": {"gsm8k": {"exact_match,strict-match": 0.71}}}'
SAMPLES = b'{"doc_id": 0, "exact_match": 1.0}\n'
STRICT = EvidenceValue(
    task="gsm8k",
    task_version="3",
    task_hash="9497",
    settings="5-shot; seed 1234",
    metric="exact_match",
    filter="strict-match",
    value=0.71,
    stderr=0.0125,
    n=1319,
    direction="higher",
    dataset="openai/gsm8k",
    samples=Digest.of(SAMPLES),
)
LOSS = EvidenceValue(task="training", metric="loss", value=1.5, step=10, direction="lower")
FILE = EvidenceFile(
    digest=Digest.of(RESULTS),
    format="lm-eval",
    harness="lm-eval",
    harness_version="0.4.13",
    harness_commit="9f2c1e",
    chat_template="cafe",
    values=(STRICT, LOSS),
)
WRONG_TASK = WithdrawalRequest(reason="measured with the wrong template")


class EvidenceContract(ContractFixtures):
    """`evidence.add`, `list`, `get`, `files`, `read_file` and `withdraw`."""

    def test_all_values_of_a_file_are_stored_with_its_version_and_author(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        version = push(ada, lora(), TONE).version
        added = add_results(ada)
        assert (added.subject, added.number, added.added, added.known) == (version.digest, 1, 2, 0)
        loss, strict = ada.evidence.list(Ref(TONE)).items
        assert strict.model_dump(include=set(EvidenceValue.model_fields)) == STRICT.model_dump()
        assert loss.model_dump(include=set(EvidenceValue.model_fields)) == LOSS.model_dump()
        assert (strict.name, strict.number, strict.subject, strict.by) == (TONE, 1, version.digest, "ada")
        assert (strict.base, strict.withdrawn, strict.format) == (version.base_id, None, "lm-eval")
        assert (strict.harness, strict.harness_version, strict.harness_commit) == (
            "lm-eval",
            "0.4.13",
            "9f2c1e",
        )
        assert (strict.chat_template, strict.file) == ("cafe", Digest.of(RESULTS))
        assert ada.evidence.get(strict.id) == strict
        event = ada.adapters.history(TONE).items[0]
        assert (event.kind, event.number, event.detail["values"]) == ("evidence.added", 1, "2")

    def test_a_repeated_file_adds_nothing_and_records_nothing(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        push(ada, lora(), TONE)
        add_results(ada)
        before = ada.evidence.list(Ref(TONE))
        again = add_results(ada)
        assert (again.added, again.known) == (0, 2)
        assert ada.evidence.list(Ref(TONE)) == before
        assert [event.kind for event in ada.adapters.history(TONE).items].count("evidence.added") == 1

    def test_evidence_stays_with_its_version_when_an_alias_moves_and_the_adapter_is_renamed(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        first = push(ada, lora(1), TONE).version
        ada.aliases.move(TONE, "prod", first.digest, was=None)
        add_results(ada, Ref.parse("acme/tone@prod"))
        second = push(ada, lora(2), TONE).version
        ada.aliases.move(TONE, "prod", second.digest, was=1)
        assert ada.evidence.list(Ref.parse("acme/tone@prod")).items == ()
        voice = AdapterName.parse("acme/voice")
        ada.adapters.rename(TONE, voice)
        found = ada.evidence.list(Ref.of_revision(voice, first.digest)).items
        assert [(one.name, one.number) for one in found] == [(voice, 1), (voice, 1)]
        assert b"".join(ada.evidence.read_file(found[1].id, "samples")) == SAMPLES

    def test_stored_files_are_read_as_they_were_added(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push(make_registry(ADA), lora(), TONE)
        add_results(make_registry(ADA))
        ron = make_registry(RON)
        loss, strict = ron.evidence.list(Ref(TONE)).items
        assert [(entry.path, entry.size) for entry in ron.evidence.files(strict.id)] == [
            ("file", len(RESULTS)),
            ("samples", len(SAMPLES)),
        ]
        assert [entry.path for entry in ron.evidence.files(loss.id)] == ["file"]
        assert b"".join(ron.evidence.read_file(strict.id, "file")) == RESULTS
        assert b"".join(ron.evidence.read_file(strict.id, "file", 10)) == RESULTS[10:]
        with pytest.raises(NotFound, match="no stored samples"):
            b"".join(ron.evidence.read_file(loss.id, "samples"))

    def test_logged_metrics_are_evidence_without_a_file_and_only_they_are_metrics(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        push(ada, lora(), TONE)
        ada.metrics.log(Ref(TONE), {"accuracy": 0.9})
        add_results(ada)
        logged = ada.evidence.list(Ref(TONE), metric="accuracy").items[0]
        assert (logged.value, logged.stderr, logged.n, logged.task) == (0.9, None, None, None)
        assert (logged.format, logged.file, logged.direction) == (None, None, "unknown")
        assert ada.evidence.files(logged.id) == ()
        assert [(one.metric, one.value) for one in ada.metrics.list(Ref(TONE))] == [("accuracy", 0.9)]
        assert ada.versions.get(Ref(TONE)).metrics == {"accuracy": 0.9}
        with pytest.raises(Invalid, match="metrics log acme/tone@1 accuracy=VALUE"):
            ada.evidence.withdraw(logged.id, WRONG_TASK)

    def test_withdrawn_evidence_stays_with_the_first_reason(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        push(ada, lora(), TONE)
        add_results(ada)
        loss, strict = ada.evidence.list(Ref(TONE)).items
        assert ada.evidence.withdraw(strict.id, WRONG_TASK).withdrawn == 1
        found = ada.evidence.get(strict.id)
        assert found.withdrawn is not None
        assert (found.withdrawn.by, found.withdrawn.reason) == ("ada", WRONG_TASK.reason)
        assert found.value == strict.value
        assert ada.evidence.get(loss.id).withdrawn is None
        whole = WithdrawalRequest(reason="another reason", whole_file=True)
        assert ada.evidence.withdraw(strict.id, whole).withdrawn == 1
        assert ada.evidence.withdraw(loss.id, WRONG_TASK).withdrawn == 0
        reasons = [one.withdrawn.reason for one in ada.evidence.list(Ref(TONE)).items if one.withdrawn]
        assert reasons == ["another reason", WRONG_TASK.reason]
        assert add_results(ada).added == 0
        event = ada.adapters.history(TONE).items[0]
        assert (event.kind, event.detail["reason"]) == ("evidence.withdrawn", "another reason")

    def test_a_file_must_be_uploaded_before_its_values_are_added(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        push(ada, lora(), TONE)
        store(ada, RESULTS)
        with pytest.raises(Conflict, match="upload the results files"):
            ada.evidence.add(Ref(TONE), FILE)
        assert ada.evidence.list(Ref(TONE)).items == ()

    def test_evidence_is_listed_by_task_and_metric_page_by_page(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        push(ada, lora(), TONE)
        store(ada, RESULTS)
        curve = tuple(LOSS.model_copy(update={"step": step}) for step in range(5))
        other = EvidenceValue(task="gsm8k", metric="f1", value=0.5)
        ada.evidence.add(Ref(TONE), FILE.model_copy(update={"values": (*curve, other)}))
        first = ada.evidence.list(Ref(TONE), task="training", metric="loss", limit=2)
        assert [one.step for one in first.items] == [4, 3]
        second = ada.evidence.list(Ref(TONE), task="training", metric="loss", cursor=first.next, limit=200)
        assert ([one.step for one in second.items], second.next) == ([2, 1, 0], None)
        assert [one.metric for one in ada.evidence.list(Ref(TONE), task="gsm8k").items] == ["f1"]
        with pytest.raises(Invalid, match="does not belong to this listing"):
            ada.evidence.list(Ref(TONE), cursor=first.next)

    def test_only_people_who_may_add_evidence_add_and_withdraw_it(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        push(ada, lora(), TONE)
        add_results(ada)
        id = ada.evidence.list(Ref(TONE)).items[0].id
        with pytest.raises(PermissionDenied):
            make_registry(RON).evidence.add(Ref(TONE), FILE)
        with pytest.raises(PermissionDenied):
            make_registry(RON).evidence.withdraw(id, WRONG_TASK)

    def test_for_a_stranger_evidence_of_a_private_adapter_does_not_exist(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada, eve = make_registry(ADA), make_registry(EVE)
        push(ada, lora(), TONE)
        add_results(ada)
        id, absent = ada.evidence.list(Ref(TONE)).items[0].id, 999_999

        def refusals(id: int) -> list[str]:
            found = []
            for ask in (
                lambda: eve.evidence.get(id),
                lambda: eve.evidence.files(id),
                lambda: b"".join(eve.evidence.read_file(id, "file")),
                lambda: eve.evidence.withdraw(id, WRONG_TASK),
            ):
                with pytest.raises(NotFound) as refused:
                    ask()
                found.append(refused.value.message.replace(str(id), "N"))
            return found

        assert refusals(id) == refusals(absent)
        assert make_registry(LOCAL).evidence.get(id).id == id


def add_results(registry: Registry, ref: Ref | None = None) -> EvidenceAddition:
    """Adds `FILE` as evidence, after storing both of its files."""
    for data in (RESULTS, SAMPLES):
        store(registry, data)
    return registry.evidence.add(ref or Ref(TONE), FILE)


def store(registry: Registry, data: bytes) -> None:
    """Uploads bytes for `acme/tone`."""
    upload = registry.uploads.open(TONE, Digest.of(data), len(data))
    registry.uploads.finish(registry.uploads.append(upload, upload.offset, [data[upload.offset :]]))
