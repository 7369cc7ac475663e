"""Replays a decision: computes its results again from its record, and reports differences."""

from __future__ import annotations

import json
from collections.abc import Iterator

from adaptry.core.display import format_count
from adaptry.core.errors import Invalid
from adaptry.core.gates import process
from adaptry.core.gates.decision import PromotionDecision, verdict_of
from adaptry.core.gates.evaluation import ConditionResult
from adaptry.core.gates.facts import Fact
from adaptry.core.gates.policy import Policy, policy_digest


class ReplayResult(Fact):
    """The results as computed now. `differences` are sentences about results that differ from the
    record's."""

    results: tuple[ConditionResult, ...]
    differences: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        return not self.differences


def replay(decision: PromotionDecision) -> ReplayResult:
    """Evaluates the record again, without other data. Raises `MissingDependency`, `Unavailable`, and
    `Invalid` for a policy that this version of Adaptry cannot read.
    """
    differences = [
        f"the text of the policy of {one.scope} is not the one of its digest"
        for one in decision.policies
        if policy_digest(one.text) != one.digest
    ]
    differences += _other_versions(decision)
    conditions = [one.source for policy in decision.policies for one in Policy.stored(policy.text).conditions]
    if decision.condition is not None:
        conditions.append(decision.condition.strip())
    results = process.evaluate_in_child(conditions, decision.facts)
    recorded = {one.condition: one for one in decision.results}
    if len(results) != len(decision.results):
        differences.append(
            f"{format_count(len(results), 'condition')}, where the record has {len(decision.results)}"
        )
    for one in results:
        was = recorded.get(one.condition)
        if was is None or was.outcome != one.outcome:
            before = was.outcome if was is not None else "not there"
            differences.append(f"{one.condition}: {one.outcome} now, {before} in the record: {one.reason}")
    if decision.verdict in ("met", "not_met") and verdict_of(results) != decision.verdict:
        differences.append(f"the decision is {verdict_of(results)} now, and {decision.verdict} in the record")
    return ReplayResult(results=results, differences=tuple(differences))


def _other_versions(decision: PromotionDecision) -> Iterator[str]:
    """Sentences about facts of other versions than the decision's: they prove nothing about it."""
    subject = decision.facts.subject
    if (subject.number, subject.digest) != (decision.number, decision.digest):
        yield (
            f"the decision is about version {decision.number} ({decision.digest.brief}), and its facts are"
            f" those of version {subject.number} ({subject.digest.brief})"
        )
    for one in decision.facts.compared:
        found = one.version.digest if one.version is not None else None
        if one.vs == decision.alias and found != decision.was_digest:
            was, compared = (
                digest.brief if digest is not None else "none" for digest in (decision.was_digest, found)
            )
            yield f"{one.vs} was at {was} before the move, and the version that was compared is {compared}"


def parse_record(text: str) -> PromotionDecision:
    """A record as `adaptry promotion show --json` prints it, or the decision in it. Raises `Invalid`."""
    try:
        document = json.loads(text)
        return PromotionDecision.model_validate(document.get("decision", document))
    except (ValueError, AttributeError) as error:
        raise Invalid(f"not the record of a promotion: {str(error).splitlines()[0]}") from None
