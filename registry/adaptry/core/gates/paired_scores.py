"""Two versions' scores of the same documents, as the few numbers that a comparison needs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from adaptry.core.gates.facts import EvidenceFact, PairedFact
from adaptry.core.lazy_dataclass import dataclass

_TOLERANCE = 1e-6  # between the mean of the documents and the stated value, as a share of it
_MAX_SCORE = 1e100  # squares of such numbers can be summed without overflow


@dataclass(frozen=True, slots=True)
class ScoredEvidence:
    """Evidence, and the score of each document in its samples file."""

    evidence: EvidenceFact
    scores: Mapping[str, float]


def unpaired(vs: str, first: EvidenceFact, second: EvidenceFact, problem: str) -> PairedFact:
    """Why the documents of two samples files cannot be paired."""
    assert first.samples is not None
    assert second.samples is not None
    return PairedFact(
        vs=vs,
        first=first.samples,
        second=second.samples,
        metric=first.metric,
        filter=first.filter,
        problem=problem,
    )


def pair(vs: str, first: ScoredEvidence, second: ScoredEvidence) -> PairedFact:
    """The differences by document, positive where the first is better.

    Both files must have the same documents, and their means must be the stated values: a metric that is not
    the mean over documents cannot be compared by document.
    """
    one, two = first.evidence, second.evidence
    if first.scores.keys() != second.scores.keys():
        return unpaired(vs, one, two, "their samples files have different documents")
    if len(first.scores) < 2:
        return unpaired(vs, one, two, "their samples files have fewer than two documents of this metric")
    if any(abs(score) > _MAX_SCORE for scored in (first, second) for score in scored.scores.values()):
        return unpaired(vs, one, two, "the scores of their documents are too large")
    for scored in (first, second):
        mean = math.fsum(scored.scores.values()) / len(scored.scores)
        if abs(mean - scored.evidence.value) > _TOLERANCE * abs(mean):
            return unpaired(vs, one, two, f"{one.metric} is not the mean over its documents")
    sign = 1.0 if one.direction == "higher" else -1.0
    differences = [sign * (score - second.scores[key]) for key, score in first.scores.items()]
    n, mean = len(differences), math.fsum(differences) / len(differences)
    scores = [*first.scores.values(), *second.scores.values()]
    is_binary = all(score in (0.0, 1.0) for score in scores)
    return unpaired(vs, one, two, "").model_copy(
        update={
            "problem": None,
            "n": n,
            "mean": mean,
            "deviation": math.sqrt(math.fsum((one - mean) ** 2 for one in differences) / (n - 1)),
            "gained": sum(one > 0 for one in differences) if is_binary else None,
            "lost": sum(one < 0 for one in differences) if is_binary else None,
            "is_bounded": all(0 <= score <= 1 for score in scores),
        }
    )
