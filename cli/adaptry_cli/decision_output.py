"""Prints the decision of a move: each condition, whether it is met, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptry.core.gates.evaluation import ConditionOutcome, ConditionResult

_WORDS: dict[ConditionOutcome, str] = {"met": "met", "not_met": "not met", "unknown": "unknown"}


def condition_lines(results: Iterable[ConditionResult]) -> Iterator[str]:
    """Two lines for each condition: whether it is met and its text, then the reason."""
    for one in results:
        yield f"{_WORDS[one.outcome]:8} {one.condition}"
        if one.reason:
            yield f"{'':8} {one.reason}"
