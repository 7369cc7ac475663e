"""`POST /oauth/token`: tokens for CI jobs, as the Hub's clients request them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from adaptry.registry.access import CreatedToken
from adaptry.storage import device_sign_ins
from adaptry_api.app_state import AppState
from adaptry_api.auth_policy import PUBLIC, app_state_of, guarded_router
from adaptry_api.denials import mark_denied
from adaptry_api.oauth import token_exchange
from adaptry_api.oauth.answers import (
    NO_STORE,
    OAUTH_ERRORS,
    OAuthError,
    body_description,
    read_parameters,
    required,
)

_DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
_WAITING: Mapping[device_sign_ins.Waiting, str] = {
    "authorization_pending": "the user has not approved the program yet",
    "slow_down": "the program polls too often",
    "access_denied": "the user denied the program",
    "expired_token": "the code is unknown, used or expired; sign in again",
}


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
    responses=OAUTH_ERRORS,
    openapi_extra=body_description(
        {
            "grant_type": True,
            "subject_token_type": False,
            "subject_token": False,
            "resource": False,
            "device_code": False,
            "client_id": False,
        }
    ),
)
async def request_token(request: Request) -> Response:
    """Exchange a CI job's ID token or a device code for a token.

    The one is token exchange (RFC 8693), the other the device flow (RFC 8628).
    Parameters, as a form or as JSON, are `grant_type`, and for a device code `device_code`: until the user
    has approved the program, the error is `authorization_pending`. For an ID token they are
    `subject_token_type`, `subject_token` and `resource` (the adapter): the job must belong to one of the
    adapter's publishers, and the token may push to this adapter only, for 15 minutes. Errors have OAuth's
    form, `error` and `error_description`.
    """
    state = app_state_of(request)
    try:
        parameters = await read_parameters(request)
        grant = required(parameters, "grant_type")
        if grant == _DEVICE_CODE:
            return await _device_token(state, parameters)
        if grant != token_exchange.GRANT_TYPE:
            raise OAuthError("unsupported_grant_type", f"no grant type {grant[:80]!a}")
        created = await to_thread.run_sync(
            token_exchange.exchange_token, state, parameters, limiter=state.provider_calls
        )
    except OAuthError as error:
        if error.error == "invalid_grant":
            mark_denied(request.scope, error)
        return error.response
    return JSONResponse(_granted(created).model_dump(exclude_none=True), headers=NO_STORE)


async def _device_token(state: AppState, parameters: Mapping[str, str]) -> Response:
    """The token of a program whose user approved it. Raises `OAuthError` with what it is to do until then."""
    found = await to_thread.run_sync(device_sign_ins.poll, state.catalog, required(parameters, "device_code"))
    if isinstance(found, str):
        raise OAuthError(found, _WAITING[found])
    token = OAuthToken(access_token=found.secret, expires_in=_seconds_left(found))
    return JSONResponse(token.model_dump(exclude_none=True), headers=NO_STORE)


def _granted(created: CreatedToken) -> OAuthToken:
    return OAuthToken(
        access_token=created.secret,
        issued_token_type=_ISSUED_TYPE,
        expires_in=_seconds_left(created),
        scope="push",
    )


def _seconds_left(created: CreatedToken) -> int:
    assert created.expires_at is not None
    return max(1, int((created.expires_at - datetime.now(UTC)).total_seconds()))
