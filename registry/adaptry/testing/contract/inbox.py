"""Promises about posted results: they are attached to the version that they state, or kept apart; no version
is guessed.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from adaptry.core.access.grants import Limit
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied, Unauthenticated
from adaptry.core.identity import ANONYMOUS, Identity
from adaptry.core.refs import Ref
from adaptry.operations.transfer import push
from adaptry.registry.evidence import WithdrawalRequest
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

TIME = "2026-11-28T10-00-00.123456"
RESULTS, SAMPLES = f"out/results_{TIME}.json", f"out/samples_gsm8k_{TIME}.jsonl"
DOCUMENTS = b"".join(
    json.dumps({"doc_hash": f"d{at}", "metrics": ["exact_match"], "exact_match": at % 2}).encode() + b"\n"
    for at in range(4)
)


def lm_eval_results(model: str, revision: str = "", value: float = 0.5) -> bytes:
    """A results file of two tasks, as lm-eval writes it."""
    scores = {"exact_match,none": value, "exact_match_stderr,none": 0.25}
    document = {
        "results": {"gsm8k": scores, "arc": {"acc,none": 0.75}},
        "higher_is_better": {"gsm8k": {"exact_match": True}},
        "n-samples": {"gsm8k": {"original": 4, "effective": 4}},
        "config": {"model": "hf", "model_args": {"peft": model}, "peft_sha": revision},
        "lm_eval_version": "0.4.13",
        "model_name": model,
    }
    return json.dumps(document).encode()


def _limited(name: str, permission: str, *resources: str) -> Identity:
    """A principal with these rights, whose token is limited to them."""
    found = Identity.with_role(name, permission, resources)
    return replace(found, limit=Limit((permission,), tuple(grant.resource for grant in found.grants)))


class InboxContract(ContractFixtures):
    """`inbox.post`, `posted`, `list`, `get`, `read`, `attach` and `discard`."""

    def test_results_of_a_folder_named_by_its_digest_become_evidence_of_that_version(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        first = push(ada, lora(1), TONE).version
        push(ada, lora(2), TONE)
        data = lm_eval_results(f"/home/ada/acme/tone@{first.digest}")
        posted = ada.inbox.post("acme", RESULTS, data)
        assert (posted.reason, posted.adapter, posted.revision) == (None, TONE, first.digest.hex)
        found = ada.evidence.list(first.revision_ref).items
        assert [(one.task, one.metric, one.value, one.n) for one in found] == [
            ("arc", "acc", 0.75, None),
            ("gsm8k", "exact_match", 0.5, 4),
        ]
        assert b"".join(ada.evidence.read_file(found[0].id, "file")) == data
        assert ada.evidence.list(Ref(TONE)).items == ()
        assert ada.inbox.list("acme").items == ()

    def test_results_of_an_adapter_loaded_from_the_hub_state_its_commit(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        version = push(ada, lora(1), TONE).version
        commit = ada.commits.get(TONE, "main").id
        assert ada.inbox.post("acme", RESULTS, lm_eval_results("acme/tone", commit)).reason is None
        assert len(ada.evidence.list(version.revision_ref).items) == 2

    def test_samples_are_added_to_the_values_of_their_task(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        version = push(ada, lora(1), TONE).version
        with pytest.raises(Conflict, match="post results_"):
            ada.inbox.post("acme", SAMPLES, DOCUMENTS)
        ada.inbox.post("acme", RESULTS, lm_eval_results(f"acme/tone@{version.digest}"))
        assert ada.inbox.post("acme", SAMPLES, DOCUMENTS).reason is None
        (listed,) = ada.evidence.list(Ref(TONE), task="gsm8k").items
        assert listed.samples == Digest.of(DOCUMENTS)
        assert len(ada.evidence.list(Ref(TONE), task="arc").items) == 1

    def test_a_withdrawn_value_is_not_in_force_with_or_without_its_samples(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        version = push(ada, lora(1), TONE).version
        ada.inbox.post("acme", RESULTS, lm_eval_results(f"acme/tone@{version.digest}"))
        (plain,) = ada.evidence.list(Ref(TONE), task="gsm8k").items
        ada.inbox.post("acme", SAMPLES, DOCUMENTS)
        (listed,) = ada.evidence.list(Ref(TONE), task="gsm8k").items
        assert listed.id != plain.id
        withdrawal = WithdrawalRequest(reason="measured with the wrong template")
        assert ada.evidence.withdraw(listed.id, withdrawal).withdrawn == 2
        assert ada.evidence.get(plain.id).withdrawn is not None
        (listed,) = ada.evidence.list(Ref(TONE), task="gsm8k").items
        assert listed.withdrawn is not None

    def test_samples_that_arrive_later_do_not_bring_a_withdrawn_value_back(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        version = push(ada, lora(1), TONE).version
        ada.inbox.post("acme", RESULTS, lm_eval_results(f"acme/tone@{version.digest}"))
        (plain,) = ada.evidence.list(Ref(TONE), task="gsm8k").items
        ada.evidence.withdraw(plain.id, WithdrawalRequest(reason="measured with the wrong template"))
        ada.inbox.post("acme", SAMPLES, DOCUMENTS)
        (listed,) = ada.evidence.list(Ref(TONE), task="gsm8k").items
        assert (listed.id, listed.withdrawn is None) == (plain.id, False)

    @pytest.mark.parametrize("model", ["./out", "acme/tone", "acme/tone@prod", "acme/tone@abc"])
    def test_results_that_state_no_revision_are_kept_apart(
        self, make_registry: MakeRegistry, lora: MakeLora, model: str
    ) -> None:
        ada = make_registry(ADA)
        version = push(ada, lora(1), TONE).version
        ada.aliases.move(TONE, "prod", version.digest, was=None)
        posted = ada.inbox.post("acme", RESULTS, lm_eval_results(model))
        assert posted.reason is not None
        assert "does not state which version" in posted.reason
        assert ada.evidence.list(Ref(TONE)).items == ()
        (kept,) = ada.inbox.list("acme").items
        assert (kept.id, kept.model, kept.by, kept.revision) == (posted.id, model, "ada", None)

    def test_results_are_kept_apart_if_the_poster_may_not_add_evidence(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada, ron = make_registry(ADA), make_registry(RON)
        version = push(ada, lora(1), TONE).version
        data = lm_eval_results(f"acme/tone@{version.digest}")
        assert ron.inbox.post("acme", RESULTS, data).reason == "ron may not add evidence to acme/tone"
        assert ron.inbox.post("acme", SAMPLES, DOCUMENTS).reason == "ron may not add evidence to acme/tone"
        gone = lm_eval_results("acme/tone@" + "0" * 64, value=0.25)
        assert "the revision 0000" in str(ada.inbox.post("acme", RESULTS, gone).reason)
        nowhere = lm_eval_results("acme/nil@" + "0" * 64)
        assert "no adapter acme/nil" in str(ada.inbox.post("acme", RESULTS, nowhere).reason)
        (kept,) = ron.inbox.list("acme").items
        assert (kept.adapter, kept.revision, kept.samples) == (TONE, version.digest.hex, 1)
        with pytest.raises(PermissionDenied):
            ron.inbox.attach(kept.id, Ref(TONE))
        added = ada.inbox.attach(kept.id, Ref(TONE))
        assert (added.added, added.subject) == (2, version.digest)
        assert ada.evidence.list(Ref(TONE), task="gsm8k").items[0].samples == Digest.of(DOCUMENTS)
        assert ron.inbox.list("acme").items == ()

    def test_results_are_attached_only_to_the_revision_that_they_state(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada, ron = make_registry(ADA), make_registry(RON)
        first = push(ada, lora(1), TONE).version
        push(ada, lora(2), TONE)
        kept = ron.inbox.post("acme", RESULTS, lm_eval_results(f"acme/tone@{first.digest}")).id
        with pytest.raises(Conflict, match="states that it measured revision"):
            ada.inbox.attach(kept, Ref.parse("acme/tone@2"))
        with pytest.raises(PermissionDenied):  # the right is checked before the file's contents
            ron.inbox.attach(kept, Ref.parse("acme/tone@2"))
        unstated = ada.inbox.post("acme", RESULTS, lm_eval_results("./out")).id
        assert ada.inbox.attach(unstated, Ref.parse("acme/tone@2")).number == 2

    def test_discarded_results_are_deleted_with_their_samples(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        push(ada, lora(1), TONE)
        kept = ada.inbox.post("acme", RESULTS, lm_eval_results("./out")).id
        ada.inbox.post("acme", SAMPLES, DOCUMENTS)
        assert ada.inbox.read(kept) == lm_eval_results("./out")
        assert ada.inbox.get(kept).samples == 1
        ada.inbox.discard(kept)
        assert ada.inbox.posted("acme") == ()
        with pytest.raises(NotFound, match="evidence inbox NAMESPACE"):
            ada.inbox.get(kept)

    def test_a_repeated_file_changes_nothing(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        ada = make_registry(ADA)
        version = push(ada, lora(1), TONE).version
        data = lm_eval_results(f"acme/tone@{version.digest}")
        first = ada.inbox.post("acme", RESULTS, data)
        assert ada.inbox.post("acme", f"elsewhere/results_{TIME}.json", data) == first
        assert len(ada.evidence.list(Ref(TONE)).items) == 2
        assert [one.path for one in ada.inbox.posted("acme")] == [RESULTS]

    def test_kept_results_are_seen_by_their_poster_and_by_people_who_may_attach_them(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada, ron, eve = (make_registry(one) for one in (ADA, RON, EVE))
        push(ada, lora(1), TONE)
        kept = ada.inbox.post("acme", RESULTS, lm_eval_results("./out")).id
        assert len(ada.inbox.list("acme").items) == 1

        def refusals(other: Registry, id: int) -> list[str]:
            found = []
            for ask in (other.inbox.get, other.inbox.read, other.inbox.discard):
                with pytest.raises(NotFound) as refused:
                    ask(id)
                found.append(refused.value.message.replace(str(id), "N"))
            return found

        for other in (ron, eve):
            assert other.inbox.list("acme").items == ()
            assert refusals(other, kept) == refusals(other, 999_999)
        with pytest.raises(NotFound, match="no namespace acme that eve may read"):
            eve.inbox.post("acme", RESULTS, lm_eval_results("./out"))

    def test_kept_results_are_listed_page_by_page(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        ada = make_registry(ADA)
        push(ada, lora(1), TONE)
        ids = [ada.inbox.post("acme", RESULTS, lm_eval_results("./out", value=at / 8)).id for at in range(3)]
        first = ada.inbox.list("acme", None, 2)
        second = ada.inbox.list("acme", first.next, 2)
        assert [one.id for one in (*first.items, *second.items)] == ids[::-1]
        assert second.next is None
        with pytest.raises(Invalid, match="does not belong to this listing"):
            ada.inbox.list("acme", "forged", 2)

    def test_replaced_samples_are_deleted_with_the_results(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        push(ada, lora(1), TONE)
        newer, of_other = DOCUMENTS * 2, SAMPLES.replace("gsm8k", "unmeasured")
        for end in (lambda id: ada.inbox.attach(id, Ref(TONE)), ada.inbox.discard):
            kept = ada.inbox.post("acme", RESULTS, lm_eval_results("./out")).id
            for path, data in ((SAMPLES, DOCUMENTS), (SAMPLES, newer), (of_other, DOCUMENTS * 3)):
                ada.inbox.post("acme", path, data)
            end(kept)
            assert ada.inbox.posted("acme") == ()
        assert ada.evidence.list(Ref(TONE), task="gsm8k").items[0].samples == Digest.of(newer)

    def test_results_of_the_same_run_stay_when_others_are_discarded(
        self, make_registry: MakeRegistry
    ) -> None:
        ada = make_registry(ADA)
        first, second = (
            ada.inbox.post("acme", RESULTS, lm_eval_results("./out", value=at / 8)).id for at in range(2)
        )
        ada.inbox.discard(first)
        assert [one.id for one in ada.inbox.list("acme").items] == [second]

    def test_samples_are_not_kept_without_results_that_are_kept(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        version = push(ada, lora(1), TONE).version
        ada.inbox.post("acme", RESULTS, lm_eval_results(f"acme/tone@{version.digest}"))
        ada.adapters.delete(TONE)
        with pytest.raises(Conflict, match="no adapter acme/tone"):
            ada.inbox.post("acme", SAMPLES, DOCUMENTS)

    def test_anonymous_callers_post_nothing_and_see_nothing(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada, nobody = make_registry(ADA), make_registry(ANONYMOUS)
        version = push(ada, lora(1), TONE).version
        ada.adapters.edit(TONE, AdapterEdit(visibility="public"))
        for data in (lm_eval_results(f"acme/tone@{version.digest}"), b"unread"):
            with pytest.raises(Unauthenticated, match="posted with a token"):
                nobody.inbox.post("acme", RESULTS, data)
        assert ada.inbox.list("acme").items == nobody.inbox.list("acme").items == ()
        assert nobody.inbox.posted("acme") == ()

    def test_a_file_for_a_namespace_that_is_hidden_is_refused_unread(
        self, make_registry: MakeRegistry
    ) -> None:
        make_registry(ADA).adapters.create(TONE, AdapterEdit())
        stranger = make_registry(Identity.with_role("sam", "reader", ("evil",)))
        for namespace in ("acme", "nowhere"):
            with pytest.raises(NotFound, match=f"no namespace {namespace} that sam may read"):
                stranger.inbox.post(namespace, RESULTS, b"unread")

    def test_a_limited_token_sees_what_was_posted_within_its_limit(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push(make_registry(ADA), lora(1), TONE)
        ron = make_registry(RON)
        ids = {
            model: ron.inbox.post("acme", RESULTS, lm_eval_results(model)).id
            for model in ("./out", "acme/tone", "evil/tone")
        }

        def seen(*resources: str) -> set[int]:
            limited = make_registry(_limited("ron", "reader", *resources))
            listed = {one.id for one in limited.inbox.list("acme").items}
            assert {one.id for one in limited.inbox.posted("acme")} == listed
            for id in set(ids.values()) - listed:
                for ask in (limited.inbox.get, limited.inbox.read, limited.inbox.discard):
                    with pytest.raises(NotFound):
                        ask(id)
            return listed

        assert seen("evil") == seen("acme/other") == set()
        assert seen("acme/tone") == seen("acme/to*") == {ids["acme/tone"]}
        assert seen("acme") == set(ids.values())

    def test_a_limited_token_discards_only_with_the_right_to_add_evidence(
        self, make_registry: MakeRegistry
    ) -> None:
        ron = make_registry(RON)
        kept = ron.inbox.post("acme", RESULTS, lm_eval_results("./out")).id
        with pytest.raises(PermissionDenied, match="this token may not discard"):
            make_registry(_limited("ron", "reader", "acme")).inbox.discard(kept)
        make_registry(_limited("ron", "evidence.add", "acme")).inbox.discard(kept)
        assert ron.inbox.list("acme").items == ()

    @pytest.mark.parametrize(
        ("path", "data", "says"),
        [
            ("out/notes.txt", b"{}", "not a file of lm-eval"),
            (RESULTS, b"{}", "not a results file of lm-eval"),
            (RESULTS, b'{"a": 1, "a": 2}', "results_"),
            (RESULTS, b'{"results": {}, "lm_eval_version": "1"}', "finite value"),
            (SAMPLES, b"[]\n", "line 1"),
            ("../" + RESULTS, b"{}", "not a path"),
        ],
    )
    def test_a_file_that_lm_eval_does_not_write_is_refused(
        self, registry: Registry, path: str, data: bytes, says: str
    ) -> None:
        with pytest.raises(Invalid, match=says):
            registry.inbox.post("acme", path, data)
