"""Prints the decision of a move: each condition, whether it is met, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptry.core.gates.decision import PromotionDecision
from adaptry.core.gates.evaluation import ConditionResult, Outcome

_WORDS: dict[Outcome, str] = {"met": "met", "not_met": "not met", "unknown": "unknown"}


def condition_lines(results: Iterable[ConditionResult]) -> Iterator[str]:
    """Two lines for each condition: whether it is met and its text, then the reason."""
    for one in results:
        yield f"{_WORDS[one.outcome]:8} {one.condition}"
        if one.reason:
            yield f"{'':8} {one.reason}"


def verdict_sentence(decision: PromotionDecision) -> str:
    """What the decision means, in one line."""
    target = f"{decision.name}@{decision.alias}"
    met = f"{len(decision.results) - len(decision.unmet)} of {len(decision.results)} conditions are met"
    match decision.verdict:
        case "met" if not decision.is_gated:
            return f"{target} has no policy, so version {decision.number} is allowed"
        case "met":
            return f"{target} may move to version {decision.number}: {met}"
        case "overridden":
            return f"{target} moves to version {decision.number} although only {met}: {decision.reason}"
        case "rollback":
            return (
                f"{target} may go back to version {decision.number}, its previous version; only {met}, but"
                " a rollback needs none"
            )
        case "not_met":
            return f"{target} does not move to version {decision.number}: only {met}"
