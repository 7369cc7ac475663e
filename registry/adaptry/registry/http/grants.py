"""The grants role over HTTP."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.access import (
    AccessDecision,
    AccessQuery,
    GrantInfo,
    GrantRequest,
    MemberChange,
    NamespaceMembers,
)
from adaptry.registry.grants import Grants
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.inference import InferenceDecision, InferenceRequest
from adaptry.registry.records import Page

_GRANT = TypeAdapter(GrantInfo)
_GRANTS = TypeAdapter(Page[GrantInfo])
_MEMBERS = TypeAdapter(NamespaceMembers)
_DECISION = TypeAdapter(AccessDecision)
_INFERENCE = TypeAdapter(InferenceDecision)


@dataclass(frozen=True)
class HttpGrants(Grants):
    """The grants of a server's registry."""

    server: Connection

    def add(self, request: GrantRequest) -> GrantInfo:
        body = request.model_dump(mode="json", exclude_none=True)
        return self.server.request_value(_GRANT, "POST", api_path("grants"), body=body, again=True)

    def list(
        self,
        namespace: str | None = None,
        principal: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        *,
        with_members: bool = True,
    ) -> Page[GrantInfo]:
        query = {"namespace": namespace, "principal": principal, "cursor": cursor, "limit": limit}
        query |= {"with_members": with_members}
        return self.server.request_value(_GRANTS, "GET", api_path("grants"), query=query)

    def remove(self, id: int) -> None:
        self.server.request_bytes("DELETE", api_path("grants", str(id)))

    def members(self, namespace: str, cursor: str | None = None, limit: int = 50) -> NamespaceMembers:
        path, query = api_path("namespaces", namespace, "members"), {"cursor": cursor, "limit": limit}
        return self.server.request_value(_MEMBERS, "GET", path, query=query)

    def set_member(self, namespace: str, change: MemberChange) -> NamespaceMembers:
        path = api_path("namespaces", namespace, "members")
        body = {**change.model_dump(mode="json", exclude_none=True), "role": change.role}
        return self.server.request_value(_MEMBERS, "PATCH", path, body=body)

    def set_accountable(self, namespace: str, principal: str | None) -> NamespaceMembers:
        path = api_path("namespaces", namespace, "accountable")
        return self.server.request_value(_MEMBERS, "PUT", path, body={"principal": principal}, again=True)

    def explain(self, query: AccessQuery) -> AccessDecision:
        parameters = query.model_dump(mode="json", exclude_none=True)
        return self.server.request_value(_DECISION, "GET", api_path("access"), query=parameters)

    def authorize(self, request: InferenceRequest) -> InferenceDecision:
        body = {"token": request.token.get_secret_value(), "model": request.model}
        return self.server.request_value(_INFERENCE, "POST", api_path("authorize"), body=body, again=True)
