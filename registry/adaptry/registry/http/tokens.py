"""The tokens role over HTTP."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.access import CreatedToken, TokenInfo, TokenRequest
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.records import Page
from adaptry.registry.tokens import Tokens

_CREATED = TypeAdapter(CreatedToken)
_TOKENS = TypeAdapter(Page[TokenInfo])


@dataclass(frozen=True)
class HttpTokens(Tokens):
    """The tokens of a server's registry."""

    server: Connection

    def create(self, request: TokenRequest) -> CreatedToken:
        body = {**request.model_dump(mode="json", exclude_none=True), "days": request.days}
        return self.server.request_value(_CREATED, "POST", api_path("tokens"), body=body)

    def list(
        self,
        cursor: str | None = None,
        limit: int = 50,
        *,
        principal: str | None = None,
        namespace: str | None = None,
        with_revoked: bool = True,
        reverse: bool = False,
    ) -> Page[TokenInfo]:
        query = {"cursor": cursor, "limit": limit, "principal": principal, "namespace": namespace}
        query |= {"with_revoked": with_revoked, "reverse": reverse}
        return self.server.request_value(_TOKENS, "GET", api_path("tokens"), query=query)

    def revoke(self, id: int) -> None:
        self.server.request_bytes("DELETE", api_path("tokens", str(id)))
