"""Tokens: creating, listing and revoking them; anyone who finds a leaked token can revoke it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel, Field

from adaptry.registry import protocol
from adaptry.registry.access import CreatedToken, TokenInfo, TokenRequest
from adaptry.registry.records import Page
from adaptry.storage import tokens
from adaptry_api.auth_policy import PUBLIC, CallersRegistry, app_state_of, guarded_router
from adaptry_api.routes.parameters import Cursor, Limit, Reverse

ROUTES = guarded_router(f"{protocol.PREFIX}/tokens", "tokens")

_Principal = Annotated[str | None, Query(max_length=193, description="Only tokens of this principal.")]
_Namespace = Annotated[
    str | None, Query(max_length=96, description="Only tokens of the service accounts of this namespace.")
]


class LeakedTokenRequest(BaseModel, extra="forbid"):
    """The text of a leaked token."""

    token: str = Field(max_length=512)


@ROUTES.post("", status_code=201)
def create_token(request: Request, registry: CallersRegistry, body: TokenRequest) -> CreatedToken:
    """Create a token.

    Administrators can create tokens for everyone, holders of `token.manage` for the service accounts of their
    namespace, and all users for themselves. The response has the token's text, which is not stored and cannot
    be shown again.
    """
    created = registry.tokens.create(body)
    app_state_of(request).authenticator.clear_cache()  # the call may have granted rights
    return created


@ROUTES.get("")
def list_tokens(
    registry: CallersRegistry,
    principal: _Principal = None,
    namespace: _Namespace = None,
    with_revoked: Annotated[bool, Query(description="Include revoked tokens.")] = True,
    reverse: Reverse = False,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[TokenInfo]:
    """List the tokens that the caller manages, oldest first.

    The list includes revoked and expired tokens. It shows each token's principal and limits, never its text.
    """
    return registry.tokens.list(
        cursor,
        limit,
        principal=principal,
        namespace=namespace,
        with_revoked=with_revoked,
        reverse=reverse,
    )


@ROUTES.delete("/{id}", status_code=204)
def revoke_token(
    request: Request, registry: CallersRegistry, id: Annotated[int, Path(ge=1, lt=2**63)]
) -> None:
    """Revoke a token that the caller manages.

    This server refuses it from now on, other servers of the registry within five seconds.
    """
    registry.tokens.revoke(id)
    app_state_of(request).authenticator.clear_cache()


@ROUTES.post("/revoke", status_code=202, dependencies=[PUBLIC], response_class=Response)
def report_leaked_token(request: Request, body: LeakedTokenRequest) -> Response:
    """Revoke a leaked token.

    Anyone who finds a token may call this, without having their own token. The response is always the same,
    so that it does not reveal whether the text was a token.
    """
    tokens.revoke_own_token(app_state_of(request).catalog, body.token)
    app_state_of(request).authenticator.clear_cache()
    return Response(status_code=202)
