"""Decides whether an alias may move: reads the facts that its policies name (`gate_facts`), evaluates them.

`point_alias`, through which every move goes, calls `decide` in the transaction of the move. Conditions are
evaluated in a child process, and no transaction waits for it. Instead, a decision is cached by the digest of
its facts. If a transaction finds no decision, `write_decided` rolls it back, evaluates the conditions outside
any transaction, and runs it again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from adaptry.adapters.base_record import BaseRecord
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, CorruptData, Invalid, MissingDependency, NotFound, Unavailable
from adaptry.core.gates import process
from adaptry.core.gates.decision import PolicyFact, PromotionDecision, refusal, verdict_of
from adaptry.core.gates.evaluation import ConditionResult
from adaptry.core.gates.expression import PolicyCondition
from adaptry.core.gates.facts import (
    calls_of,
)
from adaptry.core.gates.policy import Policy, policy_digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.storage.catalog import (
    bases,
    commits,
    events,
    metrics,
    policies,
)
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.gate_facts import CatalogFacts, Move, base_of, document_pairs, runtime_verdicts

Result = TypeVar("Result")
_KNOWN = "adaptry_known_decisions"  # in the `info` of a transaction of `write_decided`
_MAX_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class _Question:
    """Everything on which a decision is based, read in one transaction. `key` is its digest. `manifest` and
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


class _DecisionNeeded(Exception):
    """A transaction of `write_decided` needs a decision that is not known yet."""

    def __init__(self, question: _Question) -> None:
        super().__init__(str(question.key))
        self.question = question


def write_decided(
    context: RegistryContext, action: Callable[[Transaction], Result], *, is_durable: bool = True
) -> Result:
    """The result of `action` in a transaction, in which no condition is evaluated. If a decision is missing,
    nothing is changed, and `action` runs again once the decision is made. `action` must not change anything
    else.

    Raises `Unavailable` if the facts of the conditions change all the time.
    """
    return _decided(context, lambda: context.write(is_durable=is_durable), action)


def read_decided(context: RegistryContext, action: Callable[[Transaction], Result]) -> Result:
    """Like `write_decided`, in a transaction that only reads."""
    return _decided(context, context.catalog.read, action)


def _decided(
    context: RegistryContext,
    begin: Callable[[], AbstractContextManager[Transaction]],
    action: Callable[[Transaction], Result],
) -> Result:
    known: dict[Digest, PromotionDecision | AdaptryError] = {}
    keys = metrics.MetricKeys()
    for _ in range(_MAX_ATTEMPTS):
        try:
            with begin() as tx:
                tx.info[_KNOWN] = known
                keys.apply(tx)
                return action(tx)
        except _DecisionNeeded as missing:
            known[missing.question.key] = _outcome(context, missing.question)
    raise Unavailable("the evidence and approvals of this move keep changing; try again")


def _outcome(context: RegistryContext, question: _Question) -> PromotionDecision | AdaptryError:
    """The decision, or the error of evaluating it, which is stored as well because `action` may handle it."""
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
            raise _DecisionNeeded(question)
        found = _evaluated(context, question)
    if isinstance(found, AdaptryError):
        raise found
    return found.model_copy(update={"at": question.gathered.at})


def _question(context: RegistryContext, tx: Transaction, move: Move) -> _Question | None:
    found = _policies(tx, move)
    if not found and move.request.condition is None:
        return None
    process.require_installed()
    conditions = [one for policy in found for one in Policy.stored(policy.text).conditions]
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
        facts=CatalogFacts(context, tx, move, conditions).gather(),
    )
    facts = gathered.model_dump(mode="json", exclude={"at"})
    base_id = base_of(context, tx, move, conditions)
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
    """The policies in force, or the one to try. Raises `Invalid` if the latter cannot be read."""
    if move.policy is not None:
        tried = Policy.parse(move.policy)
        if tried.alias != move.alias:
            version = f"{move.adapter.name}@{move.to.number}"
            raise Invalid(
                f"the policy is about the alias {tried.alias}, not {move.alias}; try it for {tried.alias}"
                f" (`adaptry policy try {version} --policy FILE --to {tried.alias}`)"
            )
        process.check_conditions([one.source for one in tried.conditions])
        scope, digest = str(move.adapter.name), policy_digest(move.policy)
        return (PolicyFact(scope=scope, version=0, digest=digest, text=move.policy),)
    return tuple(
        PolicyFact(scope=one.scope, version=one.version, digest=one.digest, text=one.text or "")
        for one in policies.in_force(tx, move.adapter, move.alias)
    )


def obstacle(context: RegistryContext, tx: Transaction, move: Move) -> str | None:
    """The reason why a running rollout must stop; None if it may continue. Raises `Unavailable`."""
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
                "fits": tuple(runtime_verdicts(context, conditions, question.manifest, question.base)),
                "paired": tuple(document_pairs(context, conditions, facts)),
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
    """Whether the version is the one before the last move of the alias: it may go back without conditions.

    Going forward again is a move like any other.
    """
    if move.current is None:
        return False
    last = events.last_of_alias(tx, move.adapter, move.alias)
    return (
        last is not None
        and last.kind == "alias.moved"
        and last.detail.get("to") == str(move.current.digest)
        and last.detail.get("was") == str(move.to.digest)
        and not last.detail.get("is_rollback")
    )
