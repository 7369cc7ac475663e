"""Tokens, for administrators; and revoking a leaked one, for anybody who found it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Path, Request, Response
from pydantic import BaseModel, Field

from adaptry.core.identity import Role
from adaptry.registry import protocol
from adaptry.storage import tokens
from adaptry.storage.catalog.tokens import TokenInfo
from adaptry_api.auth_policy import ADMINISTRATOR, PUBLIC, app_state_of, guarded_router

ROUTES = guarded_router(f"{protocol.PREFIX}/tokens", "tokens")


class NewToken(BaseModel, extra="forbid"):
    """A new token's name, role and namespaces, and for how many days it is valid (None: until revoked)."""

    name: str = Field(min_length=1, max_length=96)
    role: Role
    namespaces: tuple[str, ...] = Field(min_length=1, max_length=64)
    days: float | None = Field(default=90, gt=0, le=3650)


class CreatedToken(BaseModel):
    """The one time that a token's text is shown."""

    secret: str


class LeakedTokenRequest(BaseModel, extra="forbid"):
    """A token that somebody found where it should not be."""

    token: str = Field(max_length=512)


@ROUTES.post("", status_code=201, dependencies=[ADMINISTRATOR])
def create(request: Request, body: NewToken) -> CreatedToken:
    expires_at = None if body.days is None else datetime.now(UTC) + timedelta(days=body.days)
    catalog = app_state_of(request).catalog
    return CreatedToken(
        secret=tokens.create_token(catalog, body.name, body.role, body.namespaces, expires_at)
    )


@ROUTES.get("", dependencies=[ADMINISTRATOR])
def list_all(request: Request) -> tuple[TokenInfo, ...]:
    """Every token there ever was, oldest first, without the secrets."""
    return tokens.list_tokens(app_state_of(request).catalog)


@ROUTES.delete("/{id}", status_code=204, dependencies=[ADMINISTRATOR])
def revoke(request: Request, id: Annotated[int, Path(ge=1, lt=2**63)]) -> None:
    tokens.revoke_token(app_state_of(request).catalog, id)
    app_state_of(request).authenticator.clear_cache()


@ROUTES.post("/revoke", status_code=202, dependencies=[PUBLIC], response_class=Response)
def give_up(request: Request, body: LeakedTokenRequest) -> Response:
    """Always the same answer, so that nobody learns whether it was a token."""
    tokens.revoke_own_token(app_state_of(request).catalog, body.token)
    app_state_of(request).authenticator.clear_cache()
    return Response(status_code=202)
