"""Parsing policies, and the decisions that they lead to."""

from __future__ import annotations

import pytest

from adaptry.core.errors import Invalid
from adaptry.core.gates.evaluation import compute
from adaptry.core.gates.expression import PolicyCondition
from adaptry.core.gates.policy import Policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alias: prod\nrequires: []\n", "line 2: .*did you mean require"),
        ("alias: prod\nrequire:\n- apprvals('x') > 1\n", "line 3: .*did you mean approvals"),
        (
            "alias: prod\nrequire:\n- eval('a', 'b') > 1\n",
            r"line 3: .*by \.value or \.stderr or \.n",
        ),
        ("alias: prod\nrequire:\n- eval('a', 'b').valu > 1\n", "line 3: .*did you mean value"),
        ("alias: prod\nrequire:\n- state() in [1].map(x, x)\n", "line 3: .*no macros such as map"),
        ("alias: prod\nrequire:\n- {a: b}\n", "line 3: a condition must be a string"),
        ("alias: prod\n", "must list its conditions under `require:`"),
        ("alias: latest\nrequire: ['fits(\"vllm\")']\n", "latest"),
        ("require: ['fits(\"vllm\")']\n", "must name its alias"),
        ("- prod\n", "a policy must be a map"),
        ("alias: [\n", "not YAML"),
        ("a: &x [b]\nc: *x\n", "YAML alias"),
    ],
)
def test_a_policy_that_cannot_be_read_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        Policy.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fits(runtime)", "written out, not computed"),
        ("fits('a') = true", "column 11: = is not a comparison; write =="),
        ("fits('a', 'b')", "too many arguments"),
        ("fits()", "needs runtime"),
        ("fits('a'", "at the end: , is missing"),
        ("fits('a' > 1", "column 10: , is missing"),
        ("fits(vllm)", 'column 6: .*; write "vllm"'),
        ("fits(1)", "runtime must be a string"),
        ("noninferior('a', 'b', vs='p', margn=0.1)", "no argument margn; did you mean margin"),
        ("noninferior('a', 'b', 'p', margin=-0.1)", "margin, which is how much worse"),
        ("noninferior('a', 'b', 'p', 0.1, confidence=95)", "confidence must be at least 0.5"),
        ("noninferior(task='a', 'b', 'p', 0.1)", "without a name come first"),
        ("fits('a') && fits('a') @ 1", "column 24"),
        ("1 < 2", "must call at least one function"),
        ("has(fits)", "no macros such as has"),
        ("state().matches('a')", r"column 9: state\(\) has no .matches"),
        ("state() == 'a' // 'b'", "column 17: .* conditions have no comments"),
        ("state() == active", 'column 12: .* in quotation marks: "active"'),
        ("state() == 'active", "column 12: the text has no closing quotation mark"),
        ("state() == \N{LEFT DOUBLE QUOTATION MARK}a", "column 12: .* straight quotation marks"),
        ("fits('a') and fits('b')", "column 11: unknown word and; write &&"),
        ("fits('a') fits('b')", r"column 11: an operator is missing between fits\(…\) and fits"),
        ("metric('a') > 0,9", "column 16: .* decimals with a point"),
        ("metric('a') > .9", "column 15: .* a zero before the point"),
        ("metric('a') > 90%", "write 0.9 for 90 %"),
        ("metric('a') <> 1", "column 14: .* write !="),
        ("metric('a') => 1", "column 13: .* write >="),
        ("metric('a').value > 1", r"column 13: metric\(…\) has no .value"),
        ("metric('a') > 1 &&", "ends after &&"),
        ("(metric('a') > 1", r"column 1: this \( is not closed"),
        ("metric('a') > 1)", r"column 16: this \) closes nothing"),
        ("[metric('a') > 1)", r"column 17: \) cannot close the \[ of column 1"),
        ("metric('a') in [1, 2,] || -metric('a') > (0.5) && !fits('a') ? true : fits('b')", None),
        ("fits('a')" + " " * 1000, "at most 1,000 characters"),
        ("!" * 5 + "fits('vllm')", None),
        ("state() in [,] || fits('vllm')", None),
        ("state() in [, 'active']", r"column 13: , cannot follow \["),
        (
            "metric('a') > 9223372036854775808",
            r"column 15: .* too large; .* 9223372036854775807 \(write 1e30",
        ),
        ("metric('a') > -9223372036854775808", None),
        ("metric('a') > 1e999", "column 15: 1e999 is too large; the largest number is 1.7e308"),
        (
            "fits('a') ? true ? fits('b') : true : false",
            "column 18: put the choice between the . of column 11",
        ),
        ("fits('a') ? (true ? fits('b') : true) : true ? false : true", None),
        ("fits('a') : true", "column 11: this : has no"),
        ("(fits('a') ? true) : false", r"column 12: this \? has no :"),
        ("fits('a') ? true", r"column 11: this \? has no :"),
        ("state() in ['a' ? 'b', 'c']", r"column 17: this \? has no :"),
    ],
)
def test_a_condition_is_read_or_refused_with_the_place_and_the_right_form(
    text: str, message: str | None
) -> None:
    if message is None:
        PolicyCondition.parse(text)
        return
    with pytest.raises(Invalid, match=message):
        PolicyCondition.parse(text)


def test_arguments_may_be_named_and_texts_may_have_any_quotation_marks() -> None:
    named = PolicyCondition.parse(
        """noninferior(metric='em', task="gsm8k", margin=0.01, vs='prod') && fits('v')"""
    )
    placed = PolicyCondition.parse('noninferior("gsm8k", "em", "prod", 0.01, 0.95) && fits("v")')
    assert named.calls == placed.calls
    assert named.expression == placed.expression == "call0 && call1"


def test_a_condition_with_too_many_parentheses_is_refused_in_our_own_words() -> None:
    pytest.importorskip("cel")
    condition = PolicyCondition.parse(f"{'(' * 200}fits('vllm'){')' * 200}")
    computed = compute(condition, {"call0": True})
    assert isinstance(computed, str)
    assert computed.startswith("it has 200 levels of parentheses or brackets, which is too many")
