"""Policies of aliases, approvals of moves, and the decisions that were made."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from adaptry.core.digest import Digest
from adaptry.core.gates import MAX_CONDITION
from adaptry.core.gates.decision import PromotionDecision
from adaptry.registry import protocol
from adaptry.registry.policies import (
    MAX_TEXT,
    ApprovalInfo,
    PolicyInfo,
    PolicyRequest,
    PromotionInfo,
    PromotionRecord,
)
from adaptry.registry.records import Page
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.routes.parameters import Cursor, Limit, Name, Revision

ROUTES = guarded_router(f"{protocol.PREFIX}/policies", "policies")
_ADAPTER = f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}"
OF_ALIAS = guarded_router(f"{_ADAPTER}/aliases/{{alias}}", "policies")
PROMOTIONS = guarded_router(f"{_ADAPTER}/promotions", "policies")
PROMOTION = guarded_router(f"{protocol.PREFIX}/promotions", "policies")

Scope = Annotated[
    str, Query(min_length=1, max_length=193, description="A namespace, or an adapter: `acme/tone`.")
]
AliasName = Annotated[str, Query(min_length=1, max_length=64, description="The alias.")]


class PolicySetRequest(PolicyRequest, extra="forbid"):
    """The policy of a namespace or an adapter, as YAML; the alias is in the text."""


class EvaluationRequest(BaseModel, extra="forbid"):
    """The version that the alias would move to, an additional condition, and a policy to try instead of those
    in force.
    """

    to: Digest
    condition: str | None = Field(default=None, min_length=1, max_length=MAX_CONDITION)
    policy: str | None = Field(default=None, min_length=1, max_length=MAX_TEXT)


@ROUTES.get("")
def list_policies(
    registry: CallersRegistry,
    scope: Annotated[
        str | None,
        Query(min_length=1, max_length=193, description="Only those of this namespace or adapter."),
    ] = None,
) -> tuple[PolicyInfo, ...]:
    """List the policies in force.

    For an adapter, the list includes its namespace's policies, since both apply; for a namespace, those of
    its adapters.
    """
    return registry.policies.list(scope)


@ROUTES.put("")
def set_policy(registry: CallersRegistry, body: PolicySetRequest) -> PolicyInfo:
    """Set the policy of an alias.

    It becomes the next version of the policy. Conditions that cannot be read are refused, with the line; so
    are unknown engines. `warnings` names groups that do not exist yet.
    """
    return registry.policies.set(body)


@ROUTES.delete("", status_code=204)
def remove_policy(registry: CallersRegistry, scope: Scope, alias: AliasName) -> None:
    """Remove the policy of an alias; the history keeps its earlier versions."""
    registry.policies.remove(scope, alias)


@ROUTES.get("/history")
def list_policy_versions(registry: CallersRegistry, scope: Scope, alias: AliasName) -> tuple[PolicyInfo, ...]:
    """List all versions of a policy, newest first.

    A version without `text` is a removal.
    """
    return registry.policies.history(scope, alias)


@OF_ALIAS.post("/evaluation")
def evaluate_policy(
    name: Name, alias: str, body: EvaluationRequest, registry: CallersRegistry
) -> PromotionDecision:
    """Evaluate the conditions of a move, without making it.

    The response has each condition with its reason, and all facts behind the decision.
    """
    return registry.policies.evaluate(name, alias, body.to, condition=body.condition, policy=body.policy)


@OF_ALIAS.get("/approvals")
def list_approvals(name: Name, alias: str, registry: CallersRegistry) -> tuple[ApprovalInfo, ...]:
    """List the latest approvals for an alias, including void ones, newest first."""
    return registry.policies.approvals(name, alias)


@OF_ALIAS.put("/approvals/{revision}")
def approve_move(
    name: Name,
    alias: str,
    revision: Revision,
    registry: CallersRegistry,
    generation: Annotated[
        int | None,
        Query(
            ge=0,
            lt=1 << 53,
            description="Approve only if the alias has this generation (0: it does not exist).",
        ),
    ] = None,
) -> ApprovalInfo:
    """Approve the move of an alias from its current version to another.

    The approval is void once the alias has moved.
    """
    return registry.policies.approve(name, alias, revision, generation)


@OF_ALIAS.delete("/approvals/{revision}")
def withdraw_approval(name: Name, alias: str, revision: Revision, registry: CallersRegistry) -> ApprovalInfo:
    """Withdraw your own approval."""
    return registry.policies.withdraw_approval(name, alias, revision)


@PROMOTIONS.get("")
def list_promotions(
    name: Name,
    registry: CallersRegistry,
    alias: Annotated[
        str | None, Query(min_length=1, max_length=64, description="Only moves of this alias.")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[PromotionInfo]:
    """List the moves of aliases that have a policy, with their decisions, newest first."""
    return registry.policies.promotions(name, alias, cursor, limit)


@PROMOTION.get("/{id}")
def get_promotion(id: int, registry: CallersRegistry) -> PromotionRecord:
    """Get a move with its decision, and all values that were used."""
    return registry.policies.promotion(id)
