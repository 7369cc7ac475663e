"""The policies role over HTTP: policies, approvals and promotions."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.gates.decision import PromotionDecision
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, parse_stored_alias
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.http.paths import owner_path
from adaptry.registry.policies import (
    ApprovalInfo,
    Policies,
    PolicyInfo,
    PolicyRequest,
    PromotionInfo,
    PromotionRecord,
)
from adaptry.registry.records import Page

_POLICY = TypeAdapter(PolicyInfo)
_POLICIES: TypeAdapter[tuple[PolicyInfo, ...]] = TypeAdapter(tuple[PolicyInfo, ...])
_DECISION = TypeAdapter(PromotionDecision)
_APPROVAL = TypeAdapter(ApprovalInfo)
_APPROVALS: TypeAdapter[tuple[ApprovalInfo, ...]] = TypeAdapter(tuple[ApprovalInfo, ...])
_PROMOTIONS: TypeAdapter[Page[PromotionInfo]] = TypeAdapter(Page[PromotionInfo])
_PROMOTION = TypeAdapter(PromotionRecord)


@dataclass(frozen=True)
class HttpPolicies(Policies):
    """The policies of a server's registry. Every change has the same effect if it is repeated."""

    server: Connection

    def set(self, request: PolicyRequest) -> PolicyInfo:
        body = request.model_dump()
        return self.server.request_value(_POLICY, "PUT", api_path("policies"), body=body, again=True)

    def list(self, scope: str | None = None) -> tuple[PolicyInfo, ...]:
        return self.server.request_value(_POLICIES, "GET", api_path("policies"), query={"scope": scope})

    def history(self, scope: str, alias: str) -> tuple[PolicyInfo, ...]:
        query = {"scope": scope, "alias": alias}
        return self.server.request_value(_POLICIES, "GET", api_path("policies", "history"), query=query)

    def remove(self, scope: str, alias: str) -> None:
        query = {"scope": scope, "alias": alias}
        self.server.request_bytes("DELETE", api_path("policies"), query=query)

    def evaluate(
        self,
        name: AdapterName,
        alias: str,
        to: Digest,
        *,
        condition: str | None = None,
        policy: str | None = None,
    ) -> PromotionDecision:
        body = {"to": str(to), "condition": condition, "policy": policy}
        path = owner_path(name, "aliases", parse_stored_alias(alias), "evaluation")
        return self.server.request_value(_DECISION, "POST", path, body=body, again=True)

    def approve(
        self, name: AdapterName, alias: str, to: Digest, generation: int | None = None
    ) -> ApprovalInfo:
        path, query = _approval_path(name, alias, to), {"generation": generation}
        return self.server.request_value(_APPROVAL, "PUT", path, query=query, again=True)

    def withdraw_approval(self, name: AdapterName, alias: str, to: Digest) -> ApprovalInfo:
        return self.server.request_value(_APPROVAL, "DELETE", _approval_path(name, alias, to), again=False)

    def approvals(self, name: AdapterName, alias: str) -> tuple[ApprovalInfo, ...]:
        path = owner_path(name, "aliases", parse_stored_alias(alias), "approvals")
        return self.server.request_value(_APPROVALS, "GET", path)

    def promotions(
        self, name: AdapterName, alias: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[PromotionInfo]:
        query = {"alias": alias, "cursor": cursor, "limit": limit}
        return self.server.request_value(_PROMOTIONS, "GET", owner_path(name, "promotions"), query=query)

    def promotion(self, id: int) -> PromotionRecord:
        return self.server.request_value(_PROMOTION, "GET", api_path("promotions", str(id)))


def _approval_path(name: AdapterName, alias: str, to: Digest) -> str:
    return owner_path(name, "aliases", parse_stored_alias(alias), "approvals", str(to))
