"""Decides whether an alias may move: gathers what its policies name, and evaluates them.

`point_alias`, through which every move goes, calls `decide` in the transaction of the move. Evaluating takes
a child process, for which nobody should wait: a decision is kept by the digest of everything that it was made
from, and `write_decided` runs a transaction that finds none for its facts again, after it was evaluated
outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

from adaptry.adapters.adapter import Adapter, open_content
from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, CorruptData, Invalid, MissingDependency, NotFound, Unavailable
from adaptry.core.gates import process
from adaptry.core.gates.decision import PolicyFact, PromotionDecision, refusal, verdict_of
from adaptry.core.gates.evaluation import ConditionResult, find_evidence
from adaptry.core.gates.expression import Call, PolicyCondition
from adaptry.core.gates.facts import (
    ApprovalFact,
    ComparedFact,
    EvidenceFact,
    FitFact,
    GateFacts,
    PairedFact,
    VersionFact,
    calls_of,
)
from adaptry.core.gates.pairing import ScoredEvidence, pair, unpaired
from adaptry.core.gates.policy import Policy, policy_digest
from adaptry.core.identity import LOCAL
from adaptry.core.manifest import Manifest
from adaptry.core.refs import Number, Ref
from adaptry.registry.aliases import AS_POLICIES_SAY, MoveRequest
from adaptry.storage.catalog import (
    aliases,
    bases,
    commits,
    events,
    evidence,
    policies,
    principals,
    promotions,
)
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.aliases import AliasTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.versions import VersionRecord, to_record
from adaptry.storage.local.blob_content import BlobContent
from adaptry.storage.local.context import RegistryContext, require_sound

Result = TypeVar("Result")
_KNOWN = "adaptry_known_decisions"  # of a transaction of `write_decided`
_TRIES = 8
_EVIDENCE_FIELDS = frozenset(EvidenceFact.model_fields)


@dataclass(frozen=True, slots=True)
class Move:
    """A move of an alias from its current version to another, its actor, and the request's conditions. A
    `policy`, as text, is tried in place of those in force.
    """

    adapter: AdapterRecord
    alias: str
    to: VersionRecord
    current: AliasTarget | None
    by: str
    request: MoveRequest = AS_POLICIES_SAY
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    """Everything that a decision is made from, read in one transaction. `key` is its digest. `manifest` and
    `base` are those of the version, if a verdict of an engine is needed.
    """

    key: Digest
    gathered: PromotionDecision
    conditions: tuple[PolicyCondition, ...]
    condition: str | None
    override: str | None
    goes_back: bool
    manifest: Manifest | None
    base: BaseRecord | None


class _NotEvaluated(Exception):
    """A transaction of `write_decided` needs a decision that is not known yet."""

    def __init__(self, question: _Question) -> None:
        super().__init__(str(question.key))
        self.question = question


def write_decided(
    context: RegistryContext, action: Callable[[Transaction], Result], *, is_durable: bool = True
) -> Result:
    """The result of `action` in a transaction, in which no condition is evaluated: if a decision is missing,
    nothing is changed, and `action` runs again once it is evaluated. It must not change anything else.

    Raises `Unavailable` if what the conditions look at changes all the time.
    """
    return _decided(context, lambda: context.write(is_durable=is_durable), action)


def read_decided(context: RegistryContext, action: Callable[[Transaction], Result]) -> Result:
    """The same in a transaction that only reads."""
    return _decided(context, context.catalog.read, action)


def _decided(
    context: RegistryContext,
    begin: Callable[[], AbstractContextManager[Transaction]],
    action: Callable[[Transaction], Result],
) -> Result:
    known: dict[Digest, PromotionDecision | AdaptryError] = {}
    for _ in range(_TRIES):
        try:
            with begin() as tx:
                tx.info[_KNOWN] = known
                return action(tx)
        except _NotEvaluated as missing:
            known[missing.question.key] = _outcome(context, missing.question)
    raise Unavailable("the evidence and approvals of this move change all the time; try again")


def _outcome(context: RegistryContext, question: _Question) -> PromotionDecision | AdaptryError:
    """An error is kept as well, since `action` may handle it."""
    try:
        return _evaluated(context, question)
    except AdaptryError as error:
        return error


def decide(context: RegistryContext, tx: Transaction, move: Move) -> PromotionDecision | None:
    """The decision of a move; None if nothing has to be decided.

    Raises `Invalid` for a condition that cannot be read, `MissingDependency` without the extra `gates`, and
    `Unavailable`.
    """
    question = _question(context, tx, move)
    if question is None:
        return None
    known: dict[Digest, PromotionDecision | AdaptryError] | None = tx.info.get(_KNOWN)
    found = context.gate_decisions.get(question.key) or (known or {}).get(question.key)
    if found is None:
        if known is not None:
            raise _NotEvaluated(question)
        found = _evaluated(context, question)
    if isinstance(found, AdaptryError):
        raise found
    return found.model_copy(update={"at": question.gathered.at})


def _question(context: RegistryContext, tx: Transaction, move: Move) -> _Question | None:
    found = _policies(tx, move)
    if not found and move.request.condition is None:
        return None
    process.require_installed()
    conditions = [one for policy in found for one in Policy.parse(policy.text).conditions]
    if move.request.condition is not None:
        conditions.append(PolicyCondition.parse(move.request.condition))
    gathered = PromotionDecision(
        name=move.adapter.name,
        alias=move.alias,
        number=move.to.number,
        digest=move.to.digest,
        was_number=move.current.number if move.current else None,
        was_digest=move.current.digest if move.current else None,
        generation=move.current.generation if move.current else None,
        at=context.clock(),
        by=move.by,
        policies=found,
        condition=move.request.condition,
        reason=move.request.override,
        verdict="not_met",
        facts=_Gathering(context, tx, move, conditions).facts(),
    )
    facts = gathered.model_dump(mode="json", exclude={"at"})
    base_id = _base_of(context, tx, move, conditions)
    manifest = None
    if calls_of(conditions, "fits"):
        manifest = commits.tree(tx, move.adapter, move.to.digest)
        if manifest is None:
            raise NotFound(f"{move.adapter.name} has no revision {move.to.digest.brief}")
    return _Question(
        key=Digest.of(strictjson.canonical([facts, base_id])),
        gathered=gathered,
        conditions=tuple(conditions),
        condition=move.request.condition,
        override=move.request.override,
        goes_back=move.request.condition is None and is_rollback(tx, move),
        manifest=manifest,
        base=bases.record(tx, Digest(base_id)) if base_id is not None else None,
    )


def _policies(tx: Transaction, move: Move) -> tuple[PolicyFact, ...]:
    """Those in force, or the one to be tried. Raises `Invalid` if that cannot be read."""
    if move.policy is not None:
        process.check_conditions([one.source for one in Policy.parse(move.policy).conditions])
        scope, digest = str(move.adapter.name), policy_digest(move.policy)
        return (PolicyFact(scope=scope, version=0, digest=digest, text=move.policy),)
    return tuple(
        PolicyFact(scope=one.scope, version=one.version, digest=one.digest, text=one.text or "")
        for one in policies.in_force(tx, move.adapter, move.alias)
    )


def obstacle(context: RegistryContext, tx: Transaction, move: Move) -> str | None:
    """Why a move that was under way may not go on, in words; None if it may. Raises `Unavailable`."""
    try:
        decision = decide(context, tx, move)
    except (Invalid, MissingDependency) as error:
        return error.message
    return None if decision is None or decision.is_allowed else refusal(decision)


def _evaluated(context: RegistryContext, question: _Question) -> PromotionDecision:
    """Evaluates the conditions, and keeps the decision."""
    facts, conditions = question.gathered.facts, question.conditions
    results: tuple[ConditionResult, ...] = ()
    if question.condition is not None:
        process.check_conditions([question.condition])
    try:
        facts = facts.model_copy(
            update={
                "fits": tuple(_fits(context, question)),
                "paired": tuple(_pairs(context, conditions, facts)),
            }
        )
        results = process.evaluate_in_child([one.source for one in conditions], facts)
    except (CorruptData, Invalid, Unavailable):
        if not question.goes_back:  # going back does not wait for anything
            raise
    verdict = verdict_of(results) if results else "not_met"
    if verdict == "not_met" and question.override is not None:
        verdict = "overridden"
    elif verdict == "not_met" and question.goes_back:
        verdict = "rollback"
    reason = question.override if verdict == "overridden" else None
    decision = question.gathered.model_copy(
        update={"facts": facts, "results": results, "verdict": verdict, "reason": reason}
    )
    context.gate_decisions.put(question.key, decision)
    return decision


def is_rollback(tx: Transaction, move: Move) -> bool:
    """Whether the version is the one before the last move of the alias: it goes back without conditions.

    Going forward again is a move like any other.
    """
    last = events.last_of_alias(tx, move.adapter, move.alias)
    return (
        last is not None
        and move.current is not None
        and last.kind == "alias.moved"
        and last.detail.get("to") == str(move.current.digest)
        and last.detail.get("was") == str(move.to.digest)
        and not last.detail.get("is_rollback")
    )


@dataclass(frozen=True)
class _Gathering:
    """Reads what the conditions name from the catalog."""

    context: RegistryContext
    tx: Transaction
    move: Move
    conditions: Sequence[PolicyCondition]

    def facts(self) -> GateFacts:
        compared = dict.fromkeys(
            call.text("vs") for call in calls_of(self.conditions, "noninferior", "comparable")
        )
        groups = dict.fromkeys(call.text("group") for call in calls_of(self.conditions, "approvals"))
        return GateFacts(
            subject=self._version(self.move.to),
            compared=tuple(ComparedFact(vs=vs, version=self._at(vs)) for vs in compared),
            approvals=tuple(self._approvals(group) for group in groups),
        )

    def _at(self, vs: str) -> VersionFact | None:
        target = aliases.find(self.tx, self.move.adapter, vs)
        if target is None:
            return None
        ref = Ref(self.move.adapter.name, Number(target.number))
        return self._version(to_record(self.context.resolve(self.tx, ref)))

    def _version(self, version: VersionRecord) -> VersionFact:
        tasks = {call.text("task") for call in calls_of(self.conditions, *_OF_TASKS)}
        logged = {call.text("metric") for call in calls_of(self.conditions, "metric")}
        found = evidence.newest_of_tasks(self.tx, version, tasks, logged) if tasks or logged else ()
        return VersionFact(
            number=version.number,
            digest=version.digest,
            state=version.state,
            evidence=tuple(
                EvidenceFact.model_validate(one.model_dump(include=set(_EVIDENCE_FIELDS))) for one in found
            ),
        )

    def _approvals(self, group: str) -> ApprovalFact:
        if self.context.identity.name == LOCAL.name:
            return ApprovalFact(
                group=group,
                problem="approvals are not possible in a registry that is opened as a folder, which has no"
                " names; promote through its server",
            )
        found = next((one for one in principals.groups(self.tx) if one.name == group), None)
        if found is None:
            return ApprovalFact(group=group, problem=f"there is no group {group}")
        approved = promotions.approvers(self.tx, self.move.adapter, self.move.alias, self.move.to)
        columns = self.context.resolve(self.tx, Ref(self.move.adapter.name, Number(self.move.to.number)))
        ignored = {one: f"is not in {group}" for one in approved if one not in found.members}
        ignored |= {columns.created_by: "pushed the version", self.move.by: "moves the alias"}
        return ApprovalFact(
            group=group,
            by=tuple(one for one in approved if one not in ignored),
            ignored=tuple(f"{one}, who {ignored[one]}" for one in approved if one in ignored),
        )


_OF_TASKS = ("eval", "has_metric", "noninferior", "comparable")


def _fits(context: RegistryContext, question: _Question) -> Iterator[FitFact]:
    """The verdicts of the runtimes that the conditions name."""
    names = dict.fromkeys(call.text("runtime") for call in calls_of(question.conditions, "fits"))
    if question.manifest is None:
        return
    adapter = open_content(BlobContent(context.blobs, question.manifest))
    for name in names:
        try:
            yield _fit(adapter, name, question.base)
        except AdaptryError as error:
            yield FitFact(runtime=name, outcome="unknown", reason=error.message)


def _fit(adapter: Adapter, name: str, base: BaseRecord | None) -> FitFact:
    """The verdict of a runtime. Readers of the decision may not see the base, so what is found only with its
    record is given as a code. Raises `AdaptryError` for what is no runtime.
    """
    runtime = parse_runtime(name)
    alone = check_runtime(adapter, runtime)
    if alone.outcome != "as_trained" or base is None:
        reason = alone.findings[0].reason if alone.findings else ""
        return FitFact(runtime=name, outcome=alone.outcome, reason=reason)
    found = check_runtime(adapter, runtime, base)
    reason = f"{found.findings[0].code}, with its base" if found.findings else ""
    return FitFact(runtime=name, outcome=found.outcome, reason=reason)


def _base_of(
    context: RegistryContext, tx: Transaction, move: Move, conditions: Sequence[PolicyCondition]
) -> str | None:
    """The base of the version, if a verdict depends on it; a version may be bound to another one later."""
    if not calls_of(conditions, "fits"):
        return None
    columns = context.resolve(tx, Ref(move.adapter.name, Number(move.to.number)))
    return str(columns.base_id) if columns.base_id else None


def _pairs(
    context: RegistryContext, conditions: Sequence[PolicyCondition], facts: GateFacts
) -> Iterator[PairedFact]:
    """The comparisons by document, where both versions have samples."""
    seen = set()
    for call in calls_of(conditions, "noninferior"):
        vs = call.text("vs")
        first, second = _compared(call, facts)
        if first is None or second is None or first.samples is None or second.samples is None:
            continue
        key = vs, first.samples, second.samples, first.metric, first.filter
        if key not in seen:
            seen.add(key)
            yield _paired(context, vs, first, second)


def _compared(call: Call, facts: GateFacts) -> tuple[EvidenceFact | None, EvidenceFact | None]:
    other = facts.version_at(call.text("vs"))
    return find_evidence(call, facts.subject), find_evidence(call, other) if other else None


def _paired(context: RegistryContext, vs: str, first: EvidenceFact, second: EvidenceFact) -> PairedFact:
    try:
        return pair(vs, _scored(context, first), _scored(context, second))
    except Invalid as error:
        return unpaired(vs, first, second, error.message)


def _scored(context: RegistryContext, one: EvidenceFact) -> ScoredEvidence:
    """Raises `Invalid` if the file of samples is too large or malformed, and `CorruptData`."""
    assert one.samples is not None
    what = f"the samples of evidence {one.id}"
    with context.catalog.read() as tx:
        require_sound(tx, {what: one.samples})
    if context.stored_size(one.samples, what) > process.MAX_SAMPLES:
        raise Invalid(f"{what} are larger than {process.MAX_SAMPLES >> 20} MiB")
    data = b"".join(context.blobs.chunks(one.samples))
    if Digest.of(data) != one.samples:
        raise CorruptData(f"{what} are damaged in the registry; `adaptry verify` says what else is")
    return ScoredEvidence(one, process.read_scores(data, one.metric, one.filter))
