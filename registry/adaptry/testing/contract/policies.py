"""Promises about policies: an alias moves only if their conditions are met, and each decision is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, Invalid, NotFound, PermissionDenied
from adaptry.core.evidence.values import EvidenceFile, EvidenceValue
from adaptry.core.identity import Identity
from adaptry.core.refs import Ref
from adaptry.operations.transfer import push
from adaptry.registry.aliases import MoveRequest
from adaptry.registry.evidence import WithdrawalRequest
from adaptry.registry.interface import Registry
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.records import PushOptions
from adaptry.registry.rollouts import RolloutChange, RolloutPlan
from adaptry.testing.contract.evidence import store
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

GOOD_ENOUGH = 'alias: prod\nrequire:\n  - eval("gsm8k", "exact_match").value >= 0.70\n'
NO_WORSE = 'noninferior("gsm8k", "exact_match", vs="prod", margin=0.01)'
OWNER = Identity.with_role("olga", "owner", ("acme",))
ANN, BOB = (Identity.with_role(name, "maintainer", ("acme",)) for name in ("ann", "bob"))


def add_scores(registry: Registry, ref: Ref, scores: Sequence[float], task: str = "gsm8k") -> None:
    """Adds evidence of a task with this many documents, and their scores in a samples file."""
    results, samples = f'{{"of": "{ref}", "scores": {list(scores)}}}'.encode(), samples_of(scores)
    for data in (results, samples):
        store(registry, data)
    mean = sum(scores) / len(scores)
    value = EvidenceValue(
        task=task,
        task_hash="9497",
        metric="exact_match",
        value=mean,
        stderr=(mean * (1 - mean) / (len(scores) - 1)) ** 0.5,
        n=len(scores),
        direction="higher",
        samples=Digest.of(samples),
    )
    registry.evidence.add(ref, EvidenceFile(digest=Digest.of(results), format="lm-eval", values=(value,)))


def samples_of(scores: Sequence[float]) -> bytes:
    """A samples file as lm-eval writes it."""
    documents = (
        {"doc_hash": f"d{place}", "metrics": ["exact_match"], "exact_match": score}
        for place, score in enumerate(scores)
    )
    return b"".join(json.dumps(one).encode() + b"\n" for one in documents)


def right(count: int, of: int = 100) -> list[float]:
    """The scores of documents, of which the first `count` are answered correctly."""
    return [1.0] * count + [0.0] * (of - count)


def set_policy(registry: Registry, text: str, scope: str = "acme/tone") -> None:
    registry.policies.set(PolicyRequest(scope=scope, text=text))


def version(number: int) -> Ref:
    return Ref.parse(f"acme/tone@{number}")


class PoliciesContract(ContractFixtures):
    """`policies`, and their effect on `aliases.move`, pushes and rollouts."""

    def test_a_policy_has_versions_and_the_namespaces_policy_also_applies(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push(make_registry(ADA), lora(), TONE)
        olga, ron = make_registry(OWNER), make_registry(RON)
        set_policy(olga, GOOD_ENOUGH)
        set_policy(olga, GOOD_ENOUGH)  # nothing changed, so this makes no version
        second = olga.policies.set(PolicyRequest(scope="acme/tone", text=GOOD_ENOUGH.replace("0.70", "0.8")))
        assert (second.version, second.alias, second.set_by) == (2, "prod", "olga")
        set_policy(olga, "alias: prod\nrequire: ['state() == \"active\"']\n", "acme")
        assert [(one.scope, one.version) for one in ron.policies.list("acme/tone")] == [
            ("acme", 1),
            ("acme/tone", 2),
        ]
        olga.policies.remove("acme/tone", "prod")
        assert [one.scope for one in ron.policies.list()] == ["acme"]
        history = ron.policies.history("acme/tone", "prod")
        assert [(one.version, one.text is None) for one in history] == [(3, True), (2, False), (1, False)]
        with pytest.raises(NotFound, match="no policy"):
            olga.policies.remove("acme/tone", "prod")

    def test_only_managers_of_policies_change_them_and_strangers_see_none(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push(make_registry(ADA), lora(), TONE)
        set_policy(make_registry(OWNER), GOOD_ENOUGH)
        with pytest.raises(PermissionDenied, match=r"policy\.manage"):
            set_policy(make_registry(ADA), GOOD_ENOUGH, "acme")
        with pytest.raises(NotFound, match="no adapter acme/tone"):
            set_policy(make_registry(EVE), GOOD_ENOUGH)
        assert make_registry(EVE).policies.list() == ()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("alias: prod\nrequire:\n- apprvals('x') > 1\n", "line 3: .*did you mean approvals"),
            (
                "alias: prod\nrequire:\n- metric('acc')\n",
                r"its result is not true or false \(metric\(…\) is a number\)",
            ),
            ("alias: prod\nrequire:\n- metric('acc') * 2 > 1\n", "wrong types .* such as 2.0"),
            ("alias: prod\nrequire:\n- state() == 'active' &&\n", "line 3: .* ends after &&"),
            (
                "alias: prod\nrequire:\n- state() == 'active'\n- '!fits(\"vlm@0.33\")'\n",
                "unknown engine 'vlm'; did you mean vllm",
            ),
            ("alias: prod\nrequire:\n- fits('vllm@0.33,max_rank=64')\n", "vllm has no option 'max_rank'"),
        ],
    )
    def test_a_policy_that_cannot_be_read_is_refused_with_its_line(
        self, registry: Registry, lora: MakeLora, text: str, message: str
    ) -> None:
        push(registry, lora(), TONE)
        with pytest.raises(Invalid, match=message):
            set_policy(registry, text)

    def test_a_policy_may_name_a_group_that_is_created_later_and_the_result_warns(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(), TONE)
        make_group(registry, "release", ())
        text = "alias: prod\nrequire:\n- approvals('release') + approvals('relaese') + approvals('ml') > 1\n"
        for _ in range(2):  # the second time, nothing changes
            first, second = registry.policies.set(PolicyRequest(scope="acme/tone", text=text)).warnings
            assert "no group relaese" in first
            assert "adaptry group create ml" in second
        make_group(registry, "relaese", ())
        make_group(registry, "ml", ())
        assert registry.policies.set(PolicyRequest(scope="acme/tone", text=text)).warnings == ()

    def test_a_policy_for_a_version_of_an_engine_without_rules_is_accepted_with_a_warning(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(), TONE)
        text = "alias: prod\nrequire:\n- fits('vllm@9.9') && fits('vllm')\n"
        (warning,) = registry.policies.set(PolicyRequest(scope="acme/tone", text=text)).warnings
        assert re.search(r"fits\('vllm@9.9'\) .* but 9.9 was given", warning)

    def test_a_policy_warns_of_a_branch_that_can_no_longer_be_loaded_by_the_name_of_the_alias(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(), TONE)
        registry.commits.create_branch(TONE, "Prod")
        registry.commits.create_branch(TONE, "production")
        text = "alias: prod\nrequire:\n- state() == 'active'\n"
        for scope in ("acme/tone", "acme"):
            (warning,) = registry.policies.set(PolicyRequest(scope=scope, text=text)).warnings
            assert "acme/tone has a branch Prod, which cannot be loaded by this name" in warning
            assert "`hf repos branch delete acme/tone Prod`" in warning
        with pytest.raises(NotFound):
            registry.versions.get(Ref.parse("acme/tone@Prod"))
        registry.commits.delete_branch(TONE, "Prod")
        assert registry.policies.set(PolicyRequest(scope="acme/tone", text=text)).warnings == ()

    def test_an_alias_moves_once_its_conditions_are_met_and_the_decision_is_kept(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        digest = push(ada, lora(), TONE).version.digest
        set_policy(make_registry(OWNER), GOOD_ENOUGH)
        with pytest.raises(CheckFailed, match=r"1 of 1 condition is not met; .*no evidence of gsm8k"):
            ada.aliases.move(TONE, "prod", digest, was=None)
        add_scores(ada, version(1), right(65))
        with pytest.raises(CheckFailed, match=r"gsm8k exact_match is 0.65 ± 0.0479\d, n=100"):
            ada.aliases.move(TONE, "prod", digest, was=None)
        ada.evidence.withdraw(
            ada.evidence.list(version(1)).items[0].id, WithdrawalRequest(reason="the wrong template")
        )
        add_scores(ada, version(1), right(75))
        moved = ada.aliases.move(TONE, "prod", digest, was=None)
        (kept,) = make_registry(RON).policies.promotions(TONE, "prod").items
        assert (kept.number, kept.verdict, kept.by, kept.generation) == (1, "met", "ada", moved.generation)
        record = make_registry(RON).policies.promotion(kept.id)
        assert [one.outcome for one in record.decision.results] == ["met"]
        assert [one.value for _, one in record.decision.facts.all_evidence] == [0.75]
        assert Digest.of(record.decision.content) == record.record
        event = ada.adapters.history(TONE).items[0]
        assert (event.detail["verdict"], event.detail["record"]) == ("met", str(record.record))

    def test_versions_are_compared_document_by_document(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        first, second, third = (push(ada, lora(seed), TONE).version.digest for seed in (1, 2, 3))
        ada.aliases.move(TONE, "prod", first, was=None)
        comparable = 'comparable("gsm8k", vs="prod")'
        set_policy(make_registry(OWNER), f"alias: prod\nrequire:\n- {NO_WORSE}\n- {comparable}\n")
        add_scores(ada, version(1), right(350, of=500))
        add_scores(ada, version(2), right(340, of=500))
        add_scores(ada, version(3), right(351, of=500))
        with pytest.raises(
            CheckFailed, match=r"0.68 against 0.7 at prod .*paired, score test, 500 documents"
        ):
            ada.aliases.move(TONE, "prod", second, was=1)
        assert ada.aliases.move(TONE, "prod", third, was=1).number == 3

    def test_a_rollback_to_the_previous_live_version_needs_no_conditions(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        first, second, third = (push(ada, lora(seed), TONE).version.digest for seed in (1, 2, 3))
        ada.aliases.move(TONE, "prod", first, was=None)
        ada.aliases.move(TONE, "prod", second, was=1)
        set_policy(make_registry(OWNER), GOOD_ENOUGH)
        with pytest.raises(CheckFailed):
            ada.aliases.move(TONE, "prod", third, was=2)
        assert ada.policies.evaluate(TONE, "prod", first).verdict == "rollback"
        assert ada.aliases.move(TONE, "prod", first, was=2).number == 1
        assert [one.verdict for one in ada.policies.promotions(TONE).items] == ["rollback"]

    def test_a_rollback_needs_no_conditions_after_many_moves_of_aliases_with_similar_names(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        first, second = (push(ada, lora(seed), TONE).version.digest for seed in (1, 2))
        for was, digest in ((None, first), (1, second)):
            ada.aliases.move(TONE, "prod_eu", digest, was)
        for number in range(60):
            ada.aliases.move(TONE, "prod-eu", (first, second)[number % 2], was=number or None)
        set_policy(make_registry(OWNER), GOOD_ENOUGH.replace("alias: prod", "alias: prod_eu"))
        assert ada.policies.evaluate(TONE, "prod_eu", first).verdict == "rollback"

    def test_moving_forward_after_a_rollback_needs_the_conditions(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        first, second = (push(ada, lora(seed), TONE).version.digest for seed in (1, 2))
        ada.aliases.move(TONE, "prod", first, was=None)
        ada.aliases.move(TONE, "prod", second, was=1)
        set_policy(make_registry(OWNER), GOOD_ENOUGH)
        ada.aliases.move(TONE, "prod", first, was=2)
        with pytest.raises(CheckFailed, match="not met"):
            ada.aliases.move(TONE, "prod", second, was=3)

    def test_overriding_a_policy_requires_a_right_and_is_recorded_with_the_reason(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        digest = push(make_registry(ADA), lora(), TONE).version.digest
        set_policy(make_registry(OWNER), GOOD_ENOUGH)
        anyway = MoveRequest(override="the first version")
        with pytest.raises(PermissionDenied, match=r"policy\.override"):
            make_registry(ADA).aliases.move(TONE, "prod", digest, None, anyway)
        make_registry(OWNER).aliases.move(TONE, "prod", digest, None, anyway)
        event = make_registry(ADA).adapters.history(TONE).items[0]
        assert (event.detail["verdict"], event.detail["reason"]) == ("overridden", "the first version")
        (kept,) = make_registry(RON).policies.promotions(TONE).items
        assert (kept.verdict, kept.reason, kept.by) == ("overridden", "the first version", "olga")

    def test_a_move_may_add_its_own_condition(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        ada = make_registry(ADA)
        digest = push(ada, lora(), TONE, options=PushOptions(metrics={"accuracy": 0.5})).version.digest
        with pytest.raises(CheckFailed, match=r"accuracy is 0\.5"):
            ada.aliases.move(TONE, "prod", digest, None, MoveRequest(condition='metric("accuracy") > 0.6'))
        with pytest.raises(Invalid, match="unknown function metrics; did you mean metric"):
            ada.aliases.move(TONE, "prod", digest, None, MoveRequest(condition='metrics("accuracy") > 0'))
        ada.aliases.move(TONE, "prod", digest, None, MoveRequest(condition='metric("accuracy") > 0.4'))
        assert ada.policies.promotions(TONE).items[0].verdict == "met"

    def test_a_condition_on_missing_evidence_is_never_true(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        digest = push(ada, lora(), TONE).version.digest
        missing = 'eval("gsm8k", "exact_match").value < 0.5'
        for condition in (
            f'state() == "active" || {missing}',
            f'{missing} || state() == "active"',
            f"!({missing})",
            f"!{NO_WORSE}",
        ):
            decision = ada.policies.evaluate(TONE, "prod", digest, condition=condition)
            assert [one.outcome for one in decision.results] == ["unknown"], condition

    def test_every_way_to_move_an_alias_obeys_its_policy(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        first, second = (push(ada, lora(seed), TONE).version.digest for seed in (1, 2))
        ada.aliases.move(TONE, "prod", first, was=None)
        set_policy(make_registry(OWNER), GOOD_ENOUGH, "acme")
        with pytest.raises(CheckFailed, match="push without the alias"):
            push(ada, lora(3), TONE, options=PushOptions(alias="prod"))
        with pytest.raises(CheckFailed, match="not met"):
            push(ada, lora(2), TONE, options=PushOptions(alias="prod"))
        with pytest.raises(CheckFailed, match="not met"):
            ada.rollouts.start(TONE, "prod", second, RolloutPlan())
        assert [one.number for one in ada.versions.list(TONE).items] == [2, 1]
        assert ada.aliases.list(TONE)[0].digest == first
        assert ada.rollouts.list(TONE) == ()

    def test_no_branch_or_tag_replaces_an_alias_with_a_policy(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        push(ada, lora(), TONE)
        ada.commits.create_tag(TONE, "live")
        assert ada.version("acme/tone@live").number == 1
        set_policy(make_registry(OWNER), GOOD_ENOUGH)
        set_policy(make_registry(OWNER), GOOD_ENOUGH.replace("prod", "live"))
        with pytest.raises(NotFound, match="no version acme/tone@live"):
            ada.version("acme/tone@live")
        with pytest.raises(Conflict, match="alias with a policy"):
            ada.commits.create_tag(TONE, "prod")
        with pytest.raises(Conflict, match="alias with a policy"):
            ada.commits.create_branch(TONE, "prod")

    def test_another_case_of_a_name_does_not_evade_a_policy(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        digest = push(make_registry(ADA), lora(), TONE).version.digest
        set_policy(make_registry(OWNER), GOOD_ENOUGH)
        theirs = make_registry(ADA)
        with pytest.raises(CheckFailed, match="does not move to version 1"):
            theirs.aliases.move(TONE, "PROD", digest, None)
        for make in (theirs.commits.create_branch, theirs.commits.create_tag):
            with pytest.raises(Conflict, match="policy"):
                make(TONE, "Prod", "v1")

    def test_a_rollout_stops_where_its_conditions_are_no_longer_met(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ada = make_registry(ADA)
        first, second = (push(ada, lora(seed), TONE).version.digest for seed in (1, 2))
        ada.aliases.move(TONE, "prod", first, was=None)
        set_policy(make_registry(OWNER), GOOD_ENOUGH)
        add_scores(ada, version(2), right(80))
        started = ada.rollouts.start(TONE, "prod", second, RolloutPlan())
        ada.evidence.withdraw(
            ada.evidence.list(version(2)).items[0].id, WithdrawalRequest(reason="the wrong template")
        )
        stopped = ada.rollouts.change(TONE, "prod", RolloutChange(to="advance"), was=started.generation)
        assert stopped.stage == "stopped"
        assert "no evidence of gsm8k" in (stopped.reason or "")
        assert ada.aliases.list(TONE)[0].digest == first

    def test_a_policy_follows_its_adapter_to_another_name_and_ends_with_it(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        olga = make_registry(OWNER)
        push(olga, lora(), TONE)
        set_policy(olga, GOOD_ENOUGH)
        voice = type(TONE).parse("acme/voice")
        olga.adapters.rename(TONE, voice)
        assert [one.scope for one in olga.policies.list()] == ["acme/voice"]
        olga.adapters.delete(voice)
        assert olga.policies.list() == ()
        push(olga, lora(), voice)
        assert olga.policies.list("acme/voice") == ()


def make_group(registry: Registry, name: str, members: Sequence[str]) -> None:
    """A group of users, each created unless they exist."""
    known = {one.name for one in registry.principals.list().items}
    registry.principals.create_group(name)
    for member in members:
        if member not in known:
            registry.principals.create("user", member)
        registry.principals.set_membership(name, member, is_member=True)
