"""Attempts to satisfy a condition without evidence: the result is unknown, not met, or refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.gates.decision import PromotionDecision
from adaptry.core.gates.evaluation import evaluate
from adaptry.core.gates.expression import PolicyCondition
from adaptry.core.gates.facts import (
    ApprovalFact,
    ComparedFact,
    EvidenceFact,
    GateFacts,
    PairedFact,
    VersionFact,
)
from adaptry.core.gates.paired_scores import ScoredEvidence, pair
from adaptry.core.gates.policy import Policy
from adaptry.core.gates.process import check_conditions
from adaptry.core.gates.replay import replay
from adaptry.core.refs import AdapterName

pytest.importorskip("cel", reason="pip install 'adaptry[gates]'")
pytest.importorskip("scipy", reason="pip install 'adaptry[gates]'")

NO_WORSE = 'noninferior("gsm8k", "acc", vs="prod", margin=0.01)'
ALIKE = 'comparable("gsm8k", vs="prod")'


def evidence(id: int, **fields: object) -> EvidenceFact:
    usual = {
        "task": "gsm8k", "task_hash": "9497", "metric": "acc", "value": 0.9, "stderr": 0.001, "n": 1000,
        "direction": "higher", "format": "lm-eval", "file": Digest.of(b"results %d" % id),
    }  # fmt: skip
    return EvidenceFact(id=id, **{**usual, **fields})  # type: ignore[arg-type]


def facts(mine: tuple[EvidenceFact, ...], theirs: tuple[EvidenceFact, ...] = (), **more: object) -> GateFacts:
    subject = VersionFact(number=2, digest=Digest.of(b"2"), state="active", evidence=mine)
    other = VersionFact(number=1, digest=Digest.of(b"1"), state="active", evidence=theirs)
    return GateFacts(subject=subject, compared=(ComparedFact(vs="prod", version=other),), **more)  # type: ignore[arg-type]


def outcome(condition: str, given: GateFacts) -> tuple[str, str]:
    (found,) = evaluate([PolicyCondition.parse(condition)], given)
    return found.outcome, found.reason


def test_ordinary_evidence_meets_the_conditions() -> None:
    given = facts((evidence(2),), (evidence(1),))
    assert [outcome(one, given)[0] for one in (NO_WORSE, ALIKE)] == ["met", "met"]


@pytest.mark.parametrize(
    ("mine", "theirs", "reason"),
    [
        ({"n": 0}, {}, "fewer than two documents"),
        ({}, {"n": 1}, "fewer than two documents"),
        ({"stderr": None}, {}, "the standard error of gsm8k acc are stored"),
        ({"stderr": 0.0}, {}, "a standard error of 0 is not meaningful"),
        ({"direction": "unknown"}, {"direction": "unknown"}, "is better is not known"),
        ({"direction": "lower"}, {}, "is better is not known"),
        ({"filter": "flexible"}, {"filter": "strict"}, "with the filter flexible, and with strict at prod"),
        ({"settings": "5-shot"}, {"settings": "0-shot"}, "other settings than prod's (5-shot, not 0-shot)"),
        ({"file": Digest.of(b"same")}, {"file": Digest.of(b"same")}, "from one results file"),
        ({"task": "gsm8k "}, {}, "has no evidence of gsm8k acc"),
        ({"metric": "аcc"}, {}, "has no evidence of gsm8k acc"),
    ],
)
def test_noninferior_is_unknown(mine: dict[str, object], theirs: dict[str, object], reason: str) -> None:
    found = outcome(NO_WORSE, facts((evidence(2, **mine),), (evidence(1, **theirs),)))
    assert found[0] == "unknown"
    assert reason in found[1]
    assert (
        outcome(
            f'{NO_WORSE} || state() == "active"', facts((evidence(2, **mine),), (evidence(1, **theirs),))
        )[0]
        == "unknown"
    )


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"stderr": 1e-200}, {"stderr": 1e-200, "value": 0.95}),
        ({"stderr": 1e200}, {}),
        ({"value": -1e308}, {"value": 1e308}),
        ({"value": 1e308, "stderr": 1e308}, {"value": 1e308, "stderr": 1e308}),
    ],
)
def test_noninferior_is_not_met_by_numbers_at_the_ends_of_the_scale(
    mine: dict[str, object], theirs: dict[str, object]
) -> None:
    assert outcome(NO_WORSE, facts((evidence(2, **mine),), (evidence(1, **theirs),)))[0] == "not_met"


def test_documents_that_all_differ_by_the_same_amount_prove_nothing() -> None:
    one, two = (evidence(id, samples=Digest.of(b"samples %d" % id)) for id in (2, 1))
    pairs = PairedFact(
        vs="prod", first=one.samples, second=two.samples, metric="acc", n=2, mean=0.5, deviation=0.0  # type: ignore[arg-type]
    )  # fmt: skip
    found = outcome(NO_WORSE, facts((one,), (two,), paired=(pairs,)))
    assert found == ("unknown", "gsm8k acc differs by the same amount in all documents, which proves nothing")


@pytest.mark.parametrize(
    ("first", "stated", "problem"),
    [
        ({"a": 0.0002, "b": 0.0004}, 0.0009, "acc is not the mean over its documents"),
        ({"a": 1e200, "b": 0.0}, 5e199, "the scores of their documents are too large"),
        ({"a": 0.0}, 0.0, "fewer than two documents"),
        ({"a": 0.0, "c": 0.0}, 0.0, "different documents"),
    ],
)
def test_samples_that_are_not_those_of_the_value_are_not_compared(
    first: dict[str, float], stated: float, problem: str
) -> None:
    one = ScoredEvidence(evidence(2, value=stated, samples=Digest.of(b"2")), first)
    other = {"a": 0.0, "b": 0.0} if len(first) > 1 else {"a": 0.0}
    two = ScoredEvidence(evidence(1, value=0.0, samples=Digest.of(b"1")), other)
    assert problem in str(pair("prod", one, two).problem)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"n": 0}, {"n": 0}),
        ({"file": Digest.of(b"same")}, {"file": Digest.of(b"same")}),
        ({"n": None}, {"n": None}),
    ],
)
def test_comparable_is_unknown(mine: dict[str, object], theirs: dict[str, object]) -> None:
    assert outcome(ALIKE, facts((evidence(2, **mine),), (evidence(1, **theirs),)))[0] == "unknown"


VERSION_ONLY = {"task_hash": None, "task_version": "3"}


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ({"settings": "0-shot"}, {"settings": "0-shot"}, ("met", "was measured like prod's")),
        ({"settings": "5-shot"}, {"settings": "0-shot"}, ("not_met", "prod's (5-shot, not 0-shot)")),
        ({"settings": "5-shot"}, {}, ("unknown", "how gsm8k was run")),
        ({}, {}, ("unknown", "the number of examples in its prompts, is not known")),
    ],
)
def test_one_version_of_a_task_can_be_run_in_different_ways(
    mine: dict[str, object], theirs: dict[str, object], expected: tuple[str, str]
) -> None:
    both = (evidence(2, **VERSION_ONLY, **mine),), (evidence(1, **VERSION_ONLY, **theirs),)
    found = outcome(ALIKE, facts(*both, knows_settings=True))
    assert found[0] == expected[0]
    assert expected[1] in found[1]


def test_the_same_prompts_can_be_answered_with_different_settings() -> None:
    both = (evidence(2, settings="0-shot; generation 1a"),), (evidence(1, settings="0-shot; generation 2b"),)
    assert outcome(ALIKE, facts(*both, knows_settings=True))[0] == "not_met"
    assert outcome(ALIKE, facts((evidence(2),), (evidence(1),), knows_settings=True))[0] == "met"


def test_a_decision_without_settings_is_replayed_as_it_was_made() -> None:
    recorded = facts((evidence(2, **VERSION_ONLY),), (evidence(1, **VERSION_ONLY),)).model_dump()
    del recorded["knows_settings"]
    assert outcome(ALIKE, GateFacts.model_validate(recorded))[0] == "met"


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({}, None),
        ({"number": 3}, "the decision is about version 3 "),
        ({"digest": Digest.of(b"3")}, "and its facts are those of version 2"),
        ({"was_digest": Digest.of(b"0")}, "prod was at sha256:5feceb66ffc8 before the move"),
        ({"was_digest": None}, "prod was at none before the move"),
    ],
)
def test_facts_of_another_version_do_not_confirm_a_decision(
    changed: dict[str, object], difference: str | None
) -> None:
    decision = PromotionDecision(
        name=AdapterName.parse("acme/tone"), alias="prod", number=2, digest=Digest.of(b"2"), was_number=1,
        was_digest=Digest.of(b"1"), at=datetime(2026, 12, 1, tzinfo=UTC), by="ann", verdict="met",
        facts=facts(()),
    )  # fmt: skip
    found = replay(decision.model_copy(update=changed)).differences
    assert len(found) == (difference is not None) and (difference or "") in "".join(found)


def test_evidence_with_several_filters_is_evidence() -> None:
    given = facts((evidence(2, filter="strict"), evidence(3, filter="flexible")))
    assert outcome('!has_metric("gsm8k", "acc")', given)[0] == "not_met"
    assert outcome('has_metric("gsm8k", "acc")', given)[0] == "met"
    assert outcome('has_metric("gsm8k", "acc", filter="other")', given)[0] == "not_met"


def test_a_missing_group_approves_nothing() -> None:
    given = facts((), approvals=(ApprovalFact(group="release", problem="there is no group release"),))
    for condition in (
        'approvals("release") >= 0',
        '!(approvals("release") < 0)',
        'approvals("rеlease") >= 0',
    ):
        assert outcome(condition, given)[0] == "unknown"


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("noninferior('a', 'b', 'prod', margin=1e999)", "margin is too large"),
        ("noninferior('a', 'b', 'prod', margin=٠.٥)", "cannot be read"),
        ("stаte() == 'active'", "cannot be read"),
        ("state() == 'active\u202e'", "not visible: U\\+202E, at 19"),
        ("state()\u00a0== 'active'", "not visible: U\\+00A0"),
        ("state()\u200b == 'active'", "not visible: U\\+200B"),
    ],
)
def test_policies_that_a_reviewer_would_misread_are_refused(condition: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        PolicyCondition.parse(condition)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alias: prod\nrequire: ['fits(\"vllm\")']\nrequire: ['state() == \"active\"']\n", "line 3: .* once"),
        ("alias: prod\nalias: dev\nrequire: ['fits(\"vllm\")']\n", "line 2: .* once"),
        ("alias: prod\n<<: {require: ['state() == \"active\"']}\n", "line 2: .* once"),
        ("alias: prod  # \u202edorp\nrequire: ['fits(\"vllm\")']\n", "not visible: U\\+202E"),
    ],
)
def test_a_policy_that_is_not_what_it_looks_like_is_refused(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        Policy.parse(text)


def test_a_stored_policy_is_read_though_new_ones_like_it_are_refused() -> None:
    text = "alias: prod\ndescription: at\u00a0least one engine\nrequire: ['fits(\"vllm\")']\n"
    with pytest.raises(Invalid, match="not visible"):
        Policy.parse(text)
    assert [one.source for one in Policy.stored(text).conditions] == ['fits("vllm")']


@pytest.mark.parametrize(
    "condition",
    ["(" * 480 + "state() == 'active'" + ")" * 480, "!" * 900 + "fits('a')", "-" * 900 + "metric('a') < 1"],
)
def test_an_expression_of_any_depth_ends_with_an_answer(condition: str) -> None:
    """The answer comes from the child process, which may also refuse the expression."""
    try:
        check_conditions([condition])
    except Invalid as error:
        assert "condition" in error.message


@pytest.mark.parametrize(
    "condition",
    [
        'metric("a") / metric("b") > 0.9',
        '!(metric("a") / metric("b") < 0.9)',
        'metric("a") / -(metric("b") * 2.0) < 0.9',
        '0.5 < (metric("b") / metric("a")) / metric("b")',
        '1.0 / (1.0 / (metric("a") / metric("b"))) > 0.9',
        'metric("a") / double(approvals("none") - approvals("none")) > 0.9',
        'approvals("none") / approvals("none") > 0 || approvals("none") % 0 == 0 || metric("a") > 0.9',
        'metric("b") == 1.0 ? true : metric("a") / metric("b") > 0.9',
    ],
)
def test_a_condition_that_divides_by_zero_is_unknown(condition: str) -> None:
    """In CEL, the quotient is infinite, and so larger than any threshold."""
    found, reason = outcome(condition, with_metrics(a=0.5, b=0.0))
    assert found == "unknown", condition
    assert "it divides by " in reason or "cannot be computed" in reason


def test_the_divisor_that_is_zero_is_named() -> None:
    _, reason = outcome('metric("a") / (metric("b") * 2.0) > 0.9', with_metrics(a=0.5, b=0.0))
    assert reason.endswith("it divides by (metric(…) * 2.0), which is 0")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('metric("b") == 0.0 || metric("a") / metric("b") > 0.9', "met"),
        ('metric("b") != 0.0 && metric("a") / metric("b") > 0.9', "not_met"),
        ('metric("b") == 0.0 ? metric("a") > 0.4 : metric("a") / metric("b") > 0.9', "met"),
        ('metric("a") / (metric("b") + 1.0) > 0.4', "met"),
        ('metric("b") / metric("a") > 0.4', "not_met"),
    ],
)
def test_a_condition_whose_result_does_not_depend_on_a_division_by_zero_is_computed(
    condition: str, expected: str
) -> None:
    assert outcome(condition, with_metrics(a=0.5, b=0.0))[0] == expected


def with_metrics(**values: float) -> GateFacts:
    """Logged metrics, and a group without approvals."""
    logged = (
        EvidenceFact(id=place, metric=name, value=value) for place, (name, value) in enumerate(values.items())
    )
    return facts(tuple(logged), approvals=(ApprovalFact(group="none"),))
