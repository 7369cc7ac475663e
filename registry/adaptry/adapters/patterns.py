"""Patterns from an untrusted config, matched as PEFT matches them, with a limit on time.

PEFT passes `target_modules`, the keys of `rank_pattern` and so on to `re`, where a short pattern can run for
hours and hold the interpreter lock. Here plain names are compared directly (`plain_patterns`). Patterns with
the same meaning in RE2 are matched by RE2, if it is installed (`re2_patterns`), and all others by `re` in a
child process (`pattern_process`). All patterns of an adapter share one second of processor time. Only
patterns without a result by then, and those that PEFT itself cannot compile, are refused.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from adaptry.adapters.pattern_process import SUFFIX, WHOLE
from adaptry.adapters.plain_patterns import PlainIndex, parse_plain_pattern
from adaptry.adapters.re2_patterns import re2_test
from adaptry.core.errors import InvalidConfig, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout, run_bounded
from adaptry.core.processes.slots import ProcessSlots

SECONDS = 1.0
"""Seconds of processor time for all patterns of one adapter."""
_HERE = 0.2  # seconds of these for RE2 in this process; a child matches the rest
_SLOTS = ProcessSlots(running=2, waiting=8)
_MAX_REPLY = 8 << 20
_CACHE_SIZE = 256  # cached answers of children
_MAX_CACHED_BYTES = 64 << 10

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class PatternQuery:
    """A pattern and its rule: `suffix`, for keys of `rank_pattern`, or `whole`, for `target_modules` as a
    text.
    """

    rule: str
    pattern: str


class PatternMatcher:
    """The patterns of one adapter, and the names that they match.

    `mappings` are the fields whose keys are patterns, by field name. `whole` are the patterns that match
    whole names. Callers first pass all names to `prepare`, so that a single child process can match all of
    them.
    """

    def __init__(self, mappings: Mapping[str, Mapping[str, object]], whole: Iterable[str] = ()) -> None:
        self._lock = threading.RLock()
        self._indexes = {key: _Index(patterns) for key, patterns in mappings.items()}
        self._questions = dict.fromkeys(
            [
                *(PatternQuery(WHOLE, pattern) for pattern in whole if parse_plain_pattern(pattern) is None),
                *(query for index in self._indexes.values() for query in index.queries.values()),
            ]
        )
        self._names: dict[str, None] = {}
        self._asked: set[str] = set()
        self._matched: dict[PatternQuery, set[str]] = {query: set() for query in self._questions}
        self._refused: dict[PatternQuery, str] = {}
        self._left = SECONDS
        self._is_checked = False

    def prepare(self, names: Iterable[str]) -> None:
        """Adds names that will be matched later."""
        if self._questions:
            self._names.update(dict.fromkeys(names))

    def first(self, key: str, name: str) -> str | None:
        """The first pattern of the field `key`, in the field's order, that matches `name`, as in PEFT.

        Raises `InvalidConfig` if a pattern that may come before it was refused, `Unavailable`.
        """
        found = self._numbers(key, name, at_most=1)
        return self._indexes[key].patterns[found[0]] if found else None

    def conflicting_patterns(self, key: str, name: str) -> tuple[str, ...]:
        """Patterns of `key` that match `name` and have different values: two, or none if all agree.

        Raises `InvalidConfig`, `Unavailable`.
        """
        found = self._numbers(key, name, at_most=2)
        return tuple(self._indexes[key].patterns[number] for number in found) if len(found) > 1 else ()

    def unused(self, key: str, names: Collection[str]) -> tuple[str, ...]:
        """Patterns of `key` that match none of the names; refused ones are left out. Raises `Unavailable`."""
        index = self._indexes[key]
        used = {number for name in names for number in index.plain.numbers(name)}
        if index.queries:
            for name in names:
                self._answer(name)
        for number, query in index.queries.items():
            if query in self._refused or not self._matched[query].isdisjoint(names):
                used.add(number)
        texts = {parse_plain_pattern(index.patterns[number]) for number in used} - {None}
        return tuple(
            pattern
            for number, pattern in enumerate(index.patterns)
            if number not in used and parse_plain_pattern(pattern) not in texts
        )

    def matches(self, pattern: str, name: str) -> bool:
        """Whether `pattern`, one of `whole`, matches all of `name`. Raises `InvalidConfig`, `Unavailable`."""
        simple = parse_plain_pattern(pattern)
        if simple is not None:
            return simple.matches_whole(name)
        query = PatternQuery(WHOLE, pattern)
        self._answer(name)
        if query in self._refused:
            raise InvalidConfig(self._refused[query])
        return name in self._matched[query]

    def refusal(self, pattern: str, rule: str) -> str | None:
        """Why `pattern` was refused when it was matched with the prepared names; None if it was not refused.

        Raises `Unavailable`.
        """
        query = PatternQuery(rule, pattern)
        if query in self._matched:
            self._answer()
        return self._refused.get(query)

    def _numbers(self, key: str, name: str, at_most: int) -> list[int]:
        """The positions of the first patterns that match, with `at_most` different values."""
        index = self._indexes[key]
        candidates = sorted(index.plain.numbers(name))
        if index.queries:
            self._answer(name)
            candidates = sorted([*candidates, *self._engine_numbers(index, name, candidates)])
        found: dict[object, int] = {}
        for number in candidates:
            found.setdefault(index.values[number], number)
            if len(found) == at_most:
                break
        return list(found.values())

    def _engine_numbers(self, index: _Index, name: str, plain_numbers: list[int]) -> list[int]:
        """Positions of matching patterns that need an engine, up to two with different values. Raises
        `InvalidConfig` for a refused pattern that comes before any match.
        """
        found: dict[object, int] = {}
        for number, query in index.queries.items():
            if query in self._refused:
                if not found and not (plain_numbers and plain_numbers[0] < number):
                    raise InvalidConfig(self._refused[query])
            elif name in self._matched[query]:
                found.setdefault(index.values[number], number)
                if len(found) == 2:
                    break
        return list(found.values())

    def _answer(self, name: str | None = None) -> None:
        """Matches `name` and all prepared names, except those that have already been matched."""
        if name is not None and name in self._asked:
            return
        with self._lock:
            if name is not None:
                self._names[name] = None
            names = [each for each in self._names if each not in self._asked]
            open_questions = [each for each in self._questions if each not in self._refused]
            if names or not self._is_checked:
                self._is_checked = True
                left = (
                    self._by_re2(open_questions, names) if all(map(_is_printable, names)) else open_questions
                )
                if left:
                    self._by_child(left, names)
            self._asked.update(names)

    def _by_re2(self, queries: list[PatternQuery], names: list[str]) -> list[PatternQuery]:
        """Matches patterns with RE2 within a fraction of the time limit; returns those that it could not
        match.
        """
        left = []
        began = time.thread_time()
        for query in queries:
            test = re2_test(query.rule, query.pattern) if _cpu_seconds_since(began) < _HERE else None
            if test is None:
                left.append(query)
                continue
            matched = set()
            for name in names:
                if test(name):
                    matched.add(name)
                if _cpu_seconds_since(began) > _HERE:
                    left.append(query)
                    break
            else:
                self._matched[query] |= matched
        self._left -= _cpu_seconds_since(began)
        return left

    def _by_child(self, queries: list[PatternQuery], names: list[str]) -> None:
        lines = match_in_child(queries, names, self._left) if self._left > 0 else []
        for query, line in zip(queries, lines, strict=False):
            if line.startswith("="):
                bits = bin(int(line[1:], 16))[2:].zfill(len(names))
                self._matched[query].update(
                    name for name, bit in zip(names, bits, strict=False) if bit == "1"
                )
            else:
                self._refused[query] = _message(query, f"is not a pattern ({line[1:]})")
        if len(lines) > len(queries):
            self._left -= float(lines[len(queries)][1:])
        else:
            self._left = 0.0
        for query in queries[len(lines) :]:
            self._refused[query] = _message(
                query,
                "could take hours to match: with the adapter's other patterns it took over a second; "
                "write plain module names instead",
            )  # fmt: skip


class _Index:
    """The keys of one field by position: plain ones in an index, the others as queries for an engine."""

    def __init__(self, patterns: Mapping[str, object]) -> None:
        self.patterns = list(patterns)
        self.values = [str(value) for value in patterns.values()]
        self.plain = PlainIndex()
        self.queries: dict[int, PatternQuery] = {}
        for number, pattern in enumerate(self.patterns):
            simple = parse_plain_pattern(pattern)
            if simple is None or not self.plain.add(number, simple, self.values[number]):
                self.queries[number] = PatternQuery(SUFFIX, pattern)


def first_match(patterns: Mapping[str, _Value], names: Iterable[str]) -> dict[str, _Value]:
    """For each name, the value of the first pattern, in the mapping's order, that matches its end. Names that
    match no pattern are left out. Raises `InvalidConfig`, `Unavailable`.
    """
    matcher = PatternMatcher({"": patterns})
    wanted = list(names)
    matcher.prepare(wanted)
    found = ((name, matcher.first("", name)) for name in wanted)
    return {name: patterns[pattern] for name, pattern in found if pattern is not None}


def check_suffixes(patterns: Iterable[str], names: Iterable[str] = ()) -> None:
    """Raises `InvalidConfig` for the first pattern that is invalid or too slow to match with `names`."""
    wanted = dict.fromkeys(patterns)
    matcher = PatternMatcher({"": wanted})
    matcher.prepare(names)
    for pattern in wanted:
        if (reason := matcher.refusal(pattern, SUFFIX)) is not None:
            raise InvalidConfig(reason)


_kept_lock = threading.Lock()
_kept: OrderedDict[bytes, list[str]] = OrderedDict()


def match_in_child(queries: list[PatternQuery], names: list[str], seconds: float) -> list[str]:
    """The child's answers, one line per question (see `pattern_process`); fewer if it exceeded `seconds`.

    Raises `Unavailable` if no child can be started, or it crashed.
    """
    asked = [[query.rule, query.pattern] for query in queries]
    request = json.dumps({"names": names, "questions": asked}).encode()
    key = hashlib.sha256(request).digest()
    with _kept_lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    limits = ProcessLimits(seconds, answer=_MAX_REPLY)
    try:
        with _SLOTS.acquire("the patterns of adapters"):
            answer = run_bounded("adaptry.adapters.pattern_process", request, limits)
    except ProcessTimeout as timeout:
        answer = timeout.answer
    except ProcessFailed as error:
        raise Unavailable(f"the patterns of adapter_config.json could not be matched: {error}") from error
    lines = answer.decode("ascii").split("\n")[:-1]  # drops a truncated line
    is_final = len(lines) > len(queries) or seconds >= SECONDS - _HERE  # it had the full limit
    if is_final and len(answer) <= _MAX_CACHED_BYTES:
        with _kept_lock:
            _kept[key] = lines
            if len(_kept) > _CACHE_SIZE:
                _kept.popitem(last=False)
    return lines


def _message(query: PatternQuery, reason: str) -> str:
    return f"adapter_config.json: {query.pattern[:80]!a} {reason}"


def _cpu_seconds_since(began: float) -> float:
    return time.thread_time() - began


def _is_printable(name: str) -> bool:
    return name.isascii() and name.isprintable()
