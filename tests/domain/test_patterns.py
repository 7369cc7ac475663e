"""Patterns in an untrusted config match as in PEFT, at bounded cost, with RE2 and without."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from adaptry.adapters import patterns, re2_patterns
from adaptry.adapters.config import AdapterConfig, parse_config
from adaptry.adapters.methods.lora_config import scale_of
from adaptry.adapters.pattern_process import SUFFIX, WHOLE
from adaptry.adapters.patterns import PatternMatcher, PatternQuery, first_match, match_in_child
from adaptry.adapters.plain_patterns import parse_plain_pattern
from adaptry.core.errors import InvalidConfig, Unavailable
from adaptry.core.processes.bounded import ProcessFailed

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of `re`, for sets that look nested

NAMES = [
    *(f"model.layers.{n}.self_attn.{p}_proj" for n in (0, 1, 11, 27) for p in "qkvo"),
    *(f"model.layers.{n}.mlp.{p}_proj" for n in (0, 1, 11) for p in ("gate", "up", "down")),
    *(f"model.visual.blocks.{n}.attn.qkv" for n in (0, 3)),
    *(f"model.layers.1.mlp.experts.{n}.w{m}" for n in (0, 12) for m in (1, 2)),
    *(
        "lm_head",
        "model.embed_tokens",
        "q_proj",
        "xq_proj",
        "a.xq_proj",
        "layersX0Xmlp",
        "Q_PROJ",
        "v",
        ".",
        "a..b",
    ),
]
PLAIN = [
    "q_proj", "self_attn.q_proj", r"self_attn\.q_proj", "layers.0.mlp", "layers.1.self_attn.v_proj", "", ".",
    "a..b", "model.layers.0.self_attn.q_proj", r"layers\.11\.mlp\.down_proj", "lm_head", "x.proj", "q.proj",
    "-", "w1", "1.w2",
]  # fmt: skip
FOR_RE2 = [
    r".*\.q_proj", r"layers\.\d+\.self_attn\.(q|v)_proj", r".*(q|k|v)_proj", r"layers\.(0|11)\..*",
    r"[qk]_proj", r".*self_attn.*", r"^model\.layers\.1\..*$", r"(?:up|down)_proj", r"(?:(?:\w+)\.)+w[12]",
    r"(\w+\.?)+", r"(?i:Q_PROJ)", r"\w+", r".*layers\.(?:[0-9]|1[0-9])\.mlp\..*_proj", "q_proj|v_proj",
    r".{0,64}_proj", "a)|(v",
]  # fmt: skip
FOR_RE = [
    r"^(?!.*visual).*(?:q_proj|v_proj).*", r"(?<=self_attn\.)q_proj", r".*(?<!visual)\.blocks.*",
    r"(?P<x>\w)(?P=x).*", r"(?!.*visual).*_proj", r"layers\.\d{,2}\..*", r"(?>.*)q_proj", r"\w++",
    r"(?P<a>o|v)_proj(?P=a)?", r"(a*)*b", r"(a+)+b", r"(?=.*layers).*v_proj\Z", "\u0131*",
    r"(?#comment)q_proj", r"(?:.*\.)?(?=q)q_proj", r"\x71_proj", r"[[:q:]]_proj",
]  # fmt: skip
BROKEN = ["(", "*", r"\p{L}", "[", "(?i)q_proj", "a{3,1}", r"(?<=a*)b", r"\Qa\E", ")"]
ENDLESS = r"[\w.]{0,64}" * 12 + "!"
LONG = "model." + "a" * 60 + ".layers." + "b" * 60 + ".q_proj"


@pytest.fixture(params=["re2", pytest.param("without re2", marks=pytest.mark.slow)])
def engines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With and without RE2."""
    if request.param == "without re2":
        monkeypatch.setattr(re2_patterns, "_re2", lambda: None)
    else:
        pytest.importorskip("re2")
    patterns._kept.clear()
    yield
    patterns._kept.clear()


@pytest.mark.parametrize("pattern", [*PLAIN, *FOR_RE2, *FOR_RE, r"(\w)\3.*"])
@pytest.mark.usefixtures("engines")
def test_a_key_matches_what_it_matches_in_peft(pattern: str) -> None:
    expected = {name for name in NAMES if re.match(rf"(.*\.)?({pattern})$", name)}
    assert set(first_match({pattern: 1}, NAMES)) == expected


@pytest.mark.parametrize("pattern", [*PLAIN[:5], *FOR_RE2[:15], *FOR_RE, "(?i)Q_PROJ|.*v_proj"])
@pytest.mark.usefixtures("engines")
def test_a_pattern_of_modules_targets_what_it_targets_in_peft(pattern: str) -> None:
    from peft.tuners.tuners_utils import check_target_module_exists

    config = SimpleNamespace(target_modules=pattern, target_parameters=None)
    matcher = PatternMatcher({}, [pattern])
    matcher.prepare(NAMES)
    for name in NAMES:
        assert matcher.matches(pattern, name) == bool(check_target_module_exists(config, name)), name


@pytest.mark.usefixtures("engines")
def test_the_matching_key_is_the_one_that_peft_finds() -> None:
    from peft.utils.other import get_pattern_key

    rnd = random.Random(49)
    for _ in range(12):
        keys = rnd.sample([*PLAIN[:5], *PLAIN[6:], *FOR_RE2, *FOR_RE], 8)
        found = first_match({key: key for key in keys}, NAMES)
        for name in NAMES:
            assert found.get(name, name) == get_pattern_key(keys, name), (keys, name)


def test_plain_names_need_no_engine_and_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an engine was asked")

    monkeypatch.setattr(patterns, "re2_test", refuse)
    monkeypatch.setattr(patterns, "match_in_child", refuse)
    assert first_match(dict.fromkeys(PLAIN, 1), NAMES)


def test_thousands_of_keys_and_thousands_of_modules_do_not_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(patterns, "re2_test", lambda *_: looked.append("re2"))
    monkeypatch.setattr(patterns, "match_in_child", lambda *_: looked.append("child") or [])
    names = [f"model.layers.{n}.mlp.experts.{m}.w1" for n in range(64) for m in range(1024)]
    keys = {f"experts.{m}.w{n}": n for m in range(1024) for n in (1, 2, 3, 4)}
    found = first_match(keys, names)
    assert (len(found), set(found.values()), looked) == (len(names), {1}, [])


@pytest.mark.parametrize("pattern", BROKEN)
@pytest.mark.usefixtures("engines")
def test_a_pattern_that_peft_cannot_compile_is_refused(pattern: str) -> None:
    with pytest.raises(re.error):
        re.compile(rf"(.*\.)?({pattern})$")
    with pytest.raises(InvalidConfig, match="is not a pattern"):
        first_match({pattern: 1}, NAMES)


@pytest.mark.parametrize("pattern", ["(a+)+b", ENDLESS, r"(?=(\w+)+!)x", r"(.*)*(.*)*\3!"])
def test_an_endless_pattern_is_refused_after_a_second(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(re2_patterns, "_re2", lambda: None)
    config = AdapterConfig({"rank_pattern": {"q_proj": 4, pattern: 8}})
    config.patterns.prepare([LONG, "a" * 60, "." + "a" * 60 + "!" * 3 + "?"])
    assert config.value_for("rank_pattern", LONG, 1) == 4
    assert "hours" in str(config.patterns.refusal(pattern, SUFFIX))
    with pytest.raises(InvalidConfig, match="hours"):
        config.value_for("rank_pattern", "a" * 60, 1)


def test_re2_matches_patterns_that_never_end_in_re(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("re2")
    monkeypatch.setattr(patterns, "match_in_child", lambda *_: pytest.fail("a child was asked"))
    for pattern in ("(a+)+b", ENDLESS):
        assert first_match({pattern: 1, "q_proj": 2}, [LONG]) == {LONG: 2}


def test_all_patterns_of_an_adapter_share_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(re2_patterns, "_re2", lambda: None)
    given: list[float] = []

    def ask(questions: list[PatternQuery], names: list[str], seconds: float) -> list[str]:
        given.append(seconds)
        return match_in_child(questions, names, seconds)

    monkeypatch.setattr(patterns, "match_in_child", ask)
    keys = [f"(a+)+{letter}" for letter in "bcdefgh"]
    matcher = PatternMatcher({"rank_pattern": dict.fromkeys(keys)})
    matcher.prepare(["a" * 60])
    assert all("hours" in str(matcher.refusal(key, SUFFIX)) for key in keys)
    matcher.prepare(["a" * 61])
    assert all("hours" in str(matcher.refusal(key, SUFFIX)) for key in keys)
    assert given == [pytest.approx(patterns.SECONDS, abs=0.1)]


def test_matches_from_before_the_timeout_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(re2_patterns, "_re2", lambda: None)
    matcher = PatternMatcher({"rank_pattern": {r"(?!x).*q_proj": 4, "(a+)+b": 8, r"(?!x).*v_proj": 2}})
    matcher.prepare([LONG, "a" * 60])
    assert matcher.first("rank_pattern", LONG) == r"(?!x).*q_proj"
    assert matcher.refusal(r"(?!x).*q_proj", SUFFIX) is None
    assert matcher.refusal("(a+)+b", SUFFIX) is not None


def test_two_values_for_one_module_are_disputed() -> None:
    matcher = PatternMatcher(
        {"alpha_pattern": {"q_proj": 1, "self_attn.q_proj": 1, r".*\.q_proj": 2, "v": 1}}
    )
    name = "model.self_attn.q_proj"
    assert matcher.conflicting_patterns("alpha_pattern", name) == ("q_proj", r".*\.q_proj")
    assert matcher.conflicting_patterns("alpha_pattern", "v") == ()


def test_failing_to_start_a_process_raises_unavailable_and_gives_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise ProcessFailed("the process could not be started: no fork")

    monkeypatch.setattr(patterns, "run_bounded", fail)
    with pytest.raises(Unavailable, match="no fork"):
        first_match({"(?!x)q_proj.*": 1}, ["q_proj-never-asked"])
    assert first_match({"q_proj": 1}, ["q_proj"]) == {"q_proj": 1}


def test_a_pattern_is_plain_only_if_it_is_characters_in_a_row() -> None:
    assert all(parse_plain_pattern(pattern) for pattern in PLAIN)
    assert not any(
        parse_plain_pattern(pattern) for pattern in (*FOR_RE2, *FOR_RE, *BROKEN, r"\d", r"a\b", "\\", r"\é")
    )


def test_re2_is_imported_only_for_a_pattern_that_needs_it() -> None:
    code = (
        "import sys; from adaptry.adapters.patterns import first_match; first_match({'q_proj': 1},"
        " ['a.q_proj']);assert 're2' not in sys.modules; first_match({'.*q_proj': 1}, ['a.q_proj']);"
        " print('re2' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() in ("True", "False")  # False if it is not installed


def test_the_first_matching_pattern_in_file_order_counts() -> None:
    config = parse_config(
        json.dumps(
            {
                "peft_type": "LORA",
                "r": 8,
                "lora_alpha": 16,
                "rank_pattern": {r"layers\.0\..*": 4, "q_proj": 16},
            }
        ).encode()
    )
    ranks = [
        scale_of(config, f"model.layers.{end}")[2]
        for end in ("0.attn.q_proj", "1.attn.q_proj", "1.attn.xq_proj")
    ]
    assert ranks == [4, 16, 8]


_ATOMS = [
    "q", "v", "_proj", "a", "K", "k", ".", r"\.", ".*", r"\d", r"\w", r"\W", r"\D", r"\s", r"\S", r"\b", "^",
    "$", "[qv]", "[^.]", "[a-z]", r"[\w.]", "[]a]", "[^]a]", "[a-]", "[-a]", "(?i)", "(?i:Q)", "(?s)", "(?m)",
    "(?s:.)", "()", "0", "-", r"\_", r"\-", r"\A", r"[\d_]", r"[^\W]", "(?:)", r"\t", "a{1,", "a{", "}", "{2",
    r"[\]]", r"[\^a]", "[k-m]", "(?i:[a-k])", "(?i:[^k])", r"\/", "#", " ", "(?P<n>q)", "(?P<m>.)", r"\a",
    "[.]", "[|]", "(?i-s:.)", "=", "!", "<", "&", ",", "@", "[^a-]", "x{2}", "(?-i:q)", "é", "{,2}",
    "[[:alpha:]]", r"\101", r"\B", r"\Z", "(?!a)", "(?=a)", r"(a)\3", "*", "a++",
]  # fmt: skip
_REPEATS = ["*", "+", "?", "*?", "+?", "??", "{0}", "{1}", "{2,}", "{0,3}", "{1,2}?", "{3}"]
_SHORT = [
    "l.0.q_proj", "q_proj", "v", "q", "K", "k", "a", "aa", "aaa", "Q_PROJ", "a.b.c", ".", "..", "l.1.v", "_",
    "-", "a-b", "x", "xx", "a{1,", "a{", "{2", "}", "qv", "0", "01", "a]", "^", "$", "|", "/x#y", "=!<>~&,@",
    "Ka.k", "aQa", "aaaaaaaa", "q@!",
]  # fmt: skip


def generated(rnd: random.Random, depth: int = 0) -> str:
    """A pattern, valid or not."""
    kind = rnd.random()
    if depth > 3 or kind < 0.5:
        return rnd.choice(_ATOMS) + (rnd.choice(_REPEATS) if rnd.random() < 0.3 else "")
    if kind < 0.75:
        return "".join(generated(rnd, depth + 1) for _ in range(rnd.randint(1, 4)))
    branches = [generated(rnd, depth + 1) if rnd.random() < 0.9 else "" for _ in range(rnd.randint(1, 3))]
    return (
        rnd.choice(["(", "(?:"])
        + "|".join(branches)
        + ")"
        + (rnd.choice(_REPEATS) if rnd.random() < 0.5 else "")
    )


def compare_engines(seed: int, count: int) -> int:
    """Matches generated patterns with both engines, which must agree; returns the number of patterns that RE2
    accepted.
    """
    rnd = random.Random(seed)
    taken = 0
    for _ in range(count):
        pairs = [PatternQuery(rnd.choice((SUFFIX, WHOLE)), generated(rnd)) for _ in range(100)]
        tests = [(pair, test) for pair in pairs if (test := re2_patterns.re2_test(pair.rule, pair.pattern))]
        lines = match_in_child([pair for pair, _ in tests], _SHORT, 2.0)
        for (pair, test), line in zip(tests, lines, strict=False):
            bits = "".join("1" if test(name) else "0" for name in _SHORT)
            assert line == f"={int(bits, 2):x}", pair
        taken += min(len(tests), len(lines))
    return taken


def test_re2_answers_as_re_does() -> None:
    pytest.importorskip("re2")
    assert compare_engines(seed=1, count=10) > 200


@pytest.mark.heavy
def test_re2_answers_as_re_does_for_thousands_of_patterns() -> None:
    pytest.importorskip("re2")
    assert compare_engines(seed=2, count=300) > 6000


def compare_with_peft(seed: int, count: int, ask: Callable[[list[str], str], str]) -> int:
    """Resolves generated sets of keys by our code and by PEFT; returns the number of sets that PEFT could
    compile.
    """
    rnd = random.Random(seed)
    compared = 0
    for _ in range(count):
        keys = list(dict.fromkeys(rnd.choice([*PLAIN, *FOR_RE2, *FOR_RE, *BROKEN]) for _ in range(4)))
        try:
            expected = {name: ask(keys, name) for name in NAMES}
        except re.error:
            continue
        found = first_match({key: key for key in keys}, NAMES)
        assert {name: found.get(name, name) for name in NAMES} == expected, keys
        compared += 1
    return compared


@pytest.mark.heavy
def test_generated_sets_of_keys_are_resolved_as_peft_resolves_them() -> None:
    from peft.utils.other import get_pattern_key

    assert compare_with_peft(3, 400, get_pattern_key) > 150


@pytest.mark.parametrize("peft_type", ["OSF", "osf"])
def test_keys_that_osf_searches_are_matched_like_all_patterns(peft_type: str) -> None:
    """They are not matched by `re` in this process, which an uploaded pattern could block."""
    config = AdapterConfig({"peft_type": peft_type, "rank_pattern": {"a)(b": 1, "(?i)Q_PROJ": 2, "proj": 3}})
    with pytest.raises(InvalidConfig):
        config.matches_rank_key("a)(b", "model.q_proj")
    assert config.matches_rank_key("(?i)Q_PROJ", "model.q_proj")
    assert not config.matches_rank_key("(?i)Q_PROJ", "model.v_proj")
    assert config.matches_rank_key("proj", "model.v_proj")
