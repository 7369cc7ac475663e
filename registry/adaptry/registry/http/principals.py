"""The principals role over HTTP."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.access import GroupInfo, InvitationInfo, InvitationRequest, PrincipalInfo, PrincipalKind
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.principals import Principals
from adaptry.registry.records import Page

_PRINCIPAL = TypeAdapter(PrincipalInfo)
_PRINCIPALS = TypeAdapter(Page[PrincipalInfo])
_INVITATION = TypeAdapter(InvitationInfo)
_GROUP = TypeAdapter(GroupInfo)
_GROUPS = TypeAdapter(Page[GroupInfo])


@dataclass(frozen=True)
class HttpPrincipals(Principals):
    """The principals of a server's registry."""

    server: Connection

    def create(self, kind: PrincipalKind, name: str) -> PrincipalInfo:
        body = {"kind": kind, "name": name}
        return self.server.request_value(_PRINCIPAL, "POST", api_path("principals"), body=body)

    def list(
        self,
        cursor: str | None = None,
        limit: int = 50,
        *,
        kinds: Collection[PrincipalKind] = (),
        namespace: str | None = None,
        prefix: str = "",
        group: str | None = None,
    ) -> Page[PrincipalInfo]:
        query = {"cursor": cursor, "limit": limit, "kind": tuple(kinds), "namespace": namespace}
        query |= {"prefix": prefix or None, "group": group}
        return self.server.request_value(_PRINCIPALS, "GET", api_path("principals"), query=query)

    def set_disabled(self, name: str, is_disabled: bool) -> PrincipalInfo:
        body = {"name": name, "is_disabled": is_disabled}
        return self.server.request_value(_PRINCIPAL, "PATCH", api_path("principals"), body=body, again=True)

    def invite(self, request: InvitationRequest) -> InvitationInfo:
        body = request.model_dump()
        return self.server.request_value(_INVITATION, "POST", api_path("invitations"), body=body)

    def groups(self, cursor: str | None = None, limit: int = 50) -> Page[GroupInfo]:
        query = {"cursor": cursor, "limit": limit}
        return self.server.request_value(_GROUPS, "GET", api_path("groups"), query=query)

    def create_group(self, name: str) -> GroupInfo:
        return self.server.request_value(_GROUP, "POST", api_path("groups"), body={"name": name})

    def delete_group(self, name: str) -> None:
        self.server.request_bytes("DELETE", api_path("groups", name))

    def set_membership(self, group: str, principal: str, is_member: bool) -> GroupInfo:
        body = {"principal": principal, "is_member": is_member}
        return self.server.request_value(_GROUP, "PATCH", api_path("groups", group, "members"), body=body)
