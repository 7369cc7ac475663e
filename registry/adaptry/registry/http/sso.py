"""The single sign-on role over HTTP: groups and users of the identity provider."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.records import Page
from adaptry.registry.sso import (
    ExternalUserInfo,
    ExternalUserRequest,
    ProviderGroupInfo,
    ProviderGroupRequest,
    SingleSignOn,
)

_GROUP = TypeAdapter(ProviderGroupInfo)
_GROUPS: TypeAdapter[tuple[ProviderGroupInfo, ...]] = TypeAdapter(tuple[ProviderGroupInfo, ...])
_USER = TypeAdapter(ExternalUserInfo)
_USERS: TypeAdapter[Page[ExternalUserInfo]] = TypeAdapter(Page[ExternalUserInfo])


@dataclass(frozen=True)
class HttpSingleSignOn(SingleSignOn):
    """Groups and users of the identity provider of a server's registry."""

    server: Connection

    def map_group(self, request: ProviderGroupRequest) -> ProviderGroupInfo:
        path, body = api_path("sso", "groups"), request.model_dump(mode="json")
        return self.server.request_value(_GROUP, "PUT", path, body=body, again=True)

    def list_groups(self) -> tuple[ProviderGroupInfo, ...]:
        return self.server.request_value(_GROUPS, "GET", api_path("sso", "groups"))

    def unmap_group(self, claim: str) -> None:
        self.server.request_bytes("DELETE", api_path("sso", "groups"), query={"claim": claim})

    def link_user(self, request: ExternalUserRequest) -> ExternalUserInfo:
        path, body = api_path("sso", "users"), request.model_dump(mode="json")
        return self.server.request_value(_USER, "PUT", path, body=body, again=True)

    def list_users(self, cursor: str | None = None, limit: int = 50) -> Page[ExternalUserInfo]:
        query = {"cursor": cursor, "limit": limit}
        return self.server.request_value(_USERS, "GET", api_path("sso", "users"), query=query)
