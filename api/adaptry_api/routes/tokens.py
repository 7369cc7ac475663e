"""Tokens, for administrators; and giving up a leaked one, for anybody who found it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Path, Request, Response
from pydantic import BaseModel, Field

from adaptry.core.identity import Role
from adaptry.registry import protocol
from adaptry.storage import tokens
from adaptry.storage.catalog.tokens import TokenInfo
from adaptry_api.auth_policy import ADMINISTRATOR, ANYBODY, guarded, store_of

ROUTES = guarded(f"{protocol.PREFIX}/tokens", "tokens")


class NewToken(BaseModel, extra="forbid"):
    """Whom a token is for, what they may do where, and for how many days (None: until it is revoked)."""

    name: str = Field(min_length=1, max_length=96)
    role: Role
    namespaces: tuple[str, ...] = Field(min_length=1, max_length=64)
    days: float | None = Field(default=90, gt=0, le=3650)


class Made(BaseModel):
    """The one time that a token's text is shown."""

    secret: str


class Found(BaseModel, extra="forbid"):
    """A token that somebody found where it should not be."""

    token: str = Field(max_length=512)


@ROUTES.post("", status_code=201, dependencies=[ADMINISTRATOR])
def create(request: Request, body: NewToken) -> Made:
    expires_at = None if body.days is None else datetime.now(UTC) + timedelta(days=body.days)
    catalog = store_of(request).catalog
    return Made(secret=tokens.create_token(catalog, body.name, body.role, body.namespaces, expires_at))


@ROUTES.get("", dependencies=[ADMINISTRATOR])
def list_all(request: Request) -> tuple[TokenInfo, ...]:
    """Every token there ever was, oldest first, without the secrets."""
    return tokens.list_tokens(store_of(request).catalog)


@ROUTES.delete("/{id}", status_code=204, dependencies=[ADMINISTRATOR])
def revoke(request: Request, id: Annotated[int, Path(ge=1, lt=2**63)]) -> None:
    tokens.revoke_token(store_of(request).catalog, id)
    store_of(request).callers.forget()


@ROUTES.post("/revoke", status_code=202, dependencies=[ANYBODY], response_class=Response)
def give_up(request: Request, body: Found) -> Response:
    """Always the same answer, so that nobody learns whether it was a token."""
    tokens.give_up(store_of(request).catalog, body.token)
    store_of(request).callers.forget()
    return Response(status_code=202)
