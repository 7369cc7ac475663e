"""`POST /oauth/token`: tokens for CI jobs and programs, as the Hub's clients request them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from adaptry.core.errors import Unauthenticated, Unavailable
from adaptry.registry.access import CreatedToken
from adaptry.storage import device_sign_ins, refresh_tokens
from adaptry.storage.refresh_tokens import ProgramTokens, RefreshTokenReused
from adaptry_api.app_state import AppState
from adaptry_api.auth_policy import PUBLIC, app_state_of, guarded_router
from adaptry_api.denials import mark_denied
from adaptry_api.oauth import token_exchange
from adaptry_api.oauth.responses import (
    NO_STORE,
    OAUTH_ERRORS,
    OAuthError,
    body_description,
    read_parameters,
    required,
)

_DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
_REFRESH: Final = "refresh_token"
_WAITING: Mapping[device_sign_ins.Waiting, str] = {
    "authorization_pending": "the user has not approved the program yet",
    "slow_down": "the program polls too often",
    "access_denied": "the user denied the program",
    "expired_token": "the code is unknown, used or expired; sign in again",
}


class OAuthToken(BaseModel):
    """A new token; `expires_in` are seconds. A program gets the next one with `refresh_token`."""

    access_token: str
    issued_token_type: str | None = None
    token_type: str = "bearer"
    expires_in: int
    refresh_token: str | None = None
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
            "refresh_token": False,
            "client_id": False,
        }
    ),
)
async def request_token(request: Request) -> Response:
    """Exchange a CI job's ID token, a device code or a refresh token for a token.

    The first is token exchange (RFC 8693), the second the device flow (RFC 8628), the third RFC 6749 §6.
    Parameters, as a form or as JSON, are `grant_type`, and for a device code `device_code`: until the user
    has approved the program, the error is `authorization_pending`. A program exchanges each `refresh_token`
    once, with the `client_id` that it began with; the answer has the next one. For an ID token they are
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
        if grant == _REFRESH:
            return await _refreshed(state, parameters)
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
    """The token of a program that its user has approved. Raises `OAuthError`, such as
    `authorization_pending`, before that."""
    found = await to_thread.run_sync(device_sign_ins.poll, state.catalog, required(parameters, "device_code"))
    if isinstance(found, str):
        raise OAuthError(found, _WAITING[found])
    return _program_answer(found)


async def _refreshed(state: AppState, parameters: Mapping[str, str]) -> Response:
    """The next tokens of a program. Raises `OAuthError`."""
    secret, client = required(parameters, "refresh_token"), required(parameters, "client_id")
    try:
        found = await to_thread.run_sync(refresh_tokens.refresh, state.catalog, secret, client)
    except Unavailable as error:
        raise OAuthError("temporarily_unavailable", error.public_message) from error
    except Unauthenticated as error:
        if isinstance(error, RefreshTokenReused):
            state.authenticator.clear_cache()
        raise OAuthError("invalid_grant", error.public_message) from error
    return _program_answer(found)


def _program_answer(found: ProgramTokens) -> Response:
    token = OAuthToken(
        access_token=found.access.secret,
        expires_in=_seconds_left(found.access),
        refresh_token=found.refresh_token,
    )
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
