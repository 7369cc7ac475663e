"""Compares a decision's facts with a registry that has the evidence: values, and samples by document."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.core.errors import AdaptryError, NotFound
from adaptry.core.gates.decision import PromotionDecision
from adaptry.core.gates.facts import EvidenceFact, PairedFact, VersionFact
from adaptry.core.gates.paired_scores import ScoredEvidence, pair
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.evidence.stored_files import iter_document_scores
from adaptry.registry.evidence import Evidence, EvidenceInfo
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items

_FIELDS = frozenset(EvidenceFact.model_fields)


def missing_evidence(
    registry: Registry, decision: PromotionDecision, name: AdapterName | None = None
) -> tuple[str, ...]:
    """The parts of a decision that the registry does not confirm, in words; `name` is the adapter's name
    there.

    Samples files are read again and compared document by document.
    """
    return tuple(_unconfirmed(registry, decision, name or decision.name))


def _unconfirmed(registry: Registry, decision: PromotionDecision, name: AdapterName) -> Iterator[str]:
    found: dict[EvidenceFact, EvidenceInfo] = {}
    for version, fact in decision.facts.all_evidence:
        try:
            same = _same_evidence(registry.evidence, name, version, fact)
        except NotFound as error:
            yield error.message
            continue
        if same is None:
            what = f"{fact.task} {fact.metric} {fact.value}"
            yield f"the registry has no such evidence for version {version.number}: {what}"
        elif same.withdrawn is not None:
            yield f"evidence {same.id} in the registry was withdrawn: {same.withdrawn.reason}"
        else:
            found[fact] = same
    for paired in decision.facts.paired:
        if paired.problem is None:
            yield from _unconfirmed_pairs(registry.evidence, paired, found)


def _same_evidence(
    evidence: Evidence, name: AdapterName, version: VersionFact, fact: EvidenceFact
) -> EvidenceInfo | None:
    ref = Ref.of_revision(name, version.digest)
    listed = iter_items(
        lambda cursor: evidence.list(ref, task=fact.task, metric=fact.metric, cursor=cursor, limit=200)
    )
    for one in listed:
        if fact.is_confirmed_by(EvidenceFact.model_validate(one.model_dump(include=set(_FIELDS)))):
            return one
    return None


def _unconfirmed_pairs(
    evidence: Evidence, paired: PairedFact, found: dict[EvidenceFact, EvidenceInfo]
) -> Iterator[str]:
    scored = []
    for samples in (paired.first, paired.second):
        fact = next(
            (
                one
                for one in found
                if (one.samples, one.metric, one.filter) == (samples, paired.metric, paired.filter)
            ),
            None,
        )
        if fact is None:
            return  # reported as missing evidence
        try:
            scored.append(ScoredEvidence(fact, _scores(evidence, found[fact])))
        except AdaptryError as error:
            yield f"the samples of evidence {found[fact].id} cannot be read: {error.message}"
            return
    if pair(paired.vs, scored[0], scored[1]) != paired:
        yield f"the samples of {paired.metric} in the registry do not give the differences in the record"


def _scores(evidence: Evidence, one: EvidenceInfo) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for document in iter_document_scores(evidence, one.id):
        if document.filter == (one.filter or "none") and one.metric in document.scores:
            values.setdefault(document.key, []).append(document.scores[one.metric])
    return {key: sum(scores) / len(scores) for key, scores in values.items()}
