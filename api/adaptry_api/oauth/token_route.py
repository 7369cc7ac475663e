"""`POST /oauth/token`: tokens for CI jobs, as the Hub's clients request them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from adaptry.registry.access import CreatedToken
from adaptry_api.auth_policy import PUBLIC, app_state_of, guarded_router
from adaptry_api.denials import mark_denied
from adaptry_api.oauth import token_exchange
from adaptry_api.oauth.answers import NO_STORE, OAuthError, body_description, read_parameters, required


class OAuthToken(BaseModel):
    """A new token; `expires_in` are seconds."""

    access_token: str
    issued_token_type: str | None = None
    token_type: str = "bearer"
    expires_in: int
    scope: str | None = None


ROUTES = guarded_router("/oauth", "sign-in")
_ISSUED_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"


@ROUTES.post(
    "/token",
    dependencies=[PUBLIC],
    response_class=JSONResponse,
    response_model=OAuthToken,
    openapi_extra=body_description(
        {"grant_type": True, "subject_token_type": True, "subject_token": True, "resource": True}
    ),
)
async def request_token(request: Request) -> Response:
    """Exchange a CI job's ID token for a token (RFC 8693).

    Parameters, as a form or as JSON: `grant_type`, `subject_token_type`, `subject_token` (the ID token) and
    `resource` (the adapter). The job must belong to one of the adapter's publishers. The token may push to
    this adapter only, for 15 minutes. Errors have OAuth's form, `error` and `error_description`.
    """
    state = app_state_of(request)
    try:
        parameters = await read_parameters(request)
        if (grant := required(parameters, "grant_type")) != token_exchange.GRANT_TYPE:
            raise OAuthError("unsupported_grant_type", f"no grant type {grant[:80]!a}")
        created = await to_thread.run_sync(token_exchange.exchange_token, state, parameters)
    except OAuthError as error:
        if error.error == "invalid_grant":
            mark_denied(request.scope, error)
        return error.response
    return JSONResponse(_granted(created).model_dump(exclude_none=True), headers=NO_STORE)


def _granted(created: CreatedToken) -> OAuthToken:
    assert created.expires_at is not None
    left = created.expires_at - datetime.now(UTC)
    return OAuthToken(
        access_token=created.secret,
        issued_token_type=_ISSUED_TYPE,
        expires_in=max(1, int(left.total_seconds())),
        scope="push",
    )
