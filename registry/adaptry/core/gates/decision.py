"""The record of a move of an alias under a policy: conditions, facts and results, from which it can be
replayed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.display import format_count
from adaptry.core.gates.evaluation import ConditionResult
from adaptry.core.gates.facts import Fact, GateFacts
from adaptry.core.refs import AdapterName

Verdict = Literal["met", "not_met", "overridden", "rollback"]
"""Why an alias moved: its conditions are met, or a user overrode them with a reason, or it went back to the
version before the last move, which needs no conditions. `not_met`: it did not move.
"""


class PolicyFact(Fact):
    """A policy at the time of the decision: its scope, version and text."""

    scope: str
    version: int
    digest: Digest
    text: str


class PromotionDecision(Fact):
    """Whether an alias may move to a version, with all inputs of the decision.

    `generation` and `was_number` are the alias's before the move, None if it did not exist. `condition` is
    that of a request (`promote --if`), and `reason` that of an override.
    """

    name: AdapterName
    alias: str
    number: int
    digest: Digest
    was_number: int | None = None
    was_digest: Digest | None = None
    generation: int | None = None
    at: datetime
    by: str
    policies: tuple[PolicyFact, ...] = ()
    condition: str | None = None
    verdict: Verdict
    reason: str | None = None
    results: tuple[ConditionResult, ...] = ()
    facts: GateFacts

    @property
    def is_allowed(self) -> bool:
        return self.verdict != "not_met"

    @property
    def is_gated(self) -> bool:
        """Whether there were any conditions."""
        return bool(self.policies) or self.condition is not None

    @property
    def content(self) -> bytes:
        """The canonical bytes of the record; the move's event has their digest."""
        return strictjson.canonical(self.model_dump(mode="json"))

    @property
    def unmet(self) -> tuple[ConditionResult, ...]:
        return tuple(one for one in self.results if not one.is_met)


def refusal(decision: PromotionDecision) -> str:
    """The message of a refused move, with each condition that is not met and why."""
    count = len(decision.unmet)
    head = (
        f"{decision.name}@{decision.alias} does not move to version {decision.number}: {count} of"
        f" {format_count(len(decision.results), 'condition')} {'is' if count == 1 else 'are'} not met"
    )
    return head + "".join(f"; {one.condition}: {one.reason}" for one in decision.unmet)


def verdict_sentence(decision: PromotionDecision) -> str:
    """A sentence with the outcome of the decision."""
    target = f"{decision.name}@{decision.alias}"
    count = len(decision.results) - len(decision.unmet)
    of = format_count(len(decision.results), "condition")
    met = f"{count} of {of} {'is' if count == 1 else 'are'} met"
    match decision.verdict:
        case "met" if not decision.is_gated:
            return f"{target} has no policy, so version {decision.number} is allowed"
        case "met":
            return f"{target} may move to version {decision.number}: {met}"
        case "overridden":
            return f"{target} moves to version {decision.number} even though only {met}: {decision.reason}"
        case "rollback":
            return (
                f"{target} may go back to version {decision.number}, its previous version; only {met}, but"
                " a rollback needs none"
            )
        case "not_met":
            return f"{target} does not move to version {decision.number}: only {met}"


def verdict_of(results: Iterable[ConditionResult]) -> Verdict:
    return "met" if all(one.is_met for one in results) else "not_met"
