"""Tokens of a server."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter

from adaptry.registry.access import CreatedToken, TokenInfo, TokenRequest
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.tokens import Tokens

_CREATED = TypeAdapter(CreatedToken)
_TOKENS: TypeAdapter[tuple[TokenInfo, ...]] = TypeAdapter(tuple[TokenInfo, ...])


@dataclass(frozen=True)
class HttpTokens(Tokens):
    """The tokens of a server's registry."""

    server: Connection

    def create(self, request: TokenRequest) -> CreatedToken:
        body = {**request.model_dump(mode="json", exclude_none=True), "days": request.days}
        return self.server.request_value(_CREATED, "POST", api_path("tokens"), body=body)

    def list(self) -> tuple[TokenInfo, ...]:
        return self.server.request_value(_TOKENS, "GET", api_path("tokens"))

    def revoke(self, id: int) -> None:
        self.server.request_bytes("DELETE", api_path("tokens", str(id)))
