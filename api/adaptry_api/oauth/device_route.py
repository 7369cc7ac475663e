"""`POST /oauth/device` (RFC 8628): a program asks for codes, which its user approves in a browser."""

from __future__ import annotations

import math

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from adaptry.core.errors import Busy
from adaptry.storage import device_sign_ins
from adaptry_api.auth_policy import PUBLIC, app_state_of, guarded_router
from adaptry_api.oauth.responses import (
    NO_STORE,
    OAUTH_ERRORS,
    OAuthError,
    body_description,
    read_parameters,
    required,
)

ROUTES = guarded_router("/oauth", "sign-in")
PAGE = "/-/device"
_MAX_LENGTH = 200


class DeviceAuthorization(BaseModel):
    """Codes for a program and its user; times are in seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    interval: int
    expires_in: int


@ROUTES.post(
    "/device",
    dependencies=[PUBLIC],
    response_class=JSONResponse,
    response_model=DeviceAuthorization,
    responses=OAUTH_ERRORS,
    openapi_extra=body_description({"client_id": True}),
)
async def begin_device_sign_in(request: Request) -> Response:
    """Begin the sign-in of a program that has no browser (RFC 8628).

    Takes `client_id`, any name of at most 200 characters, as a form or as JSON. The user opens
    `verification_uri`, signs in, and types `user_code`. In the meantime, the program polls
    `POST /oauth/token` with `device_code` every `interval` seconds.
    """
    state, peer = app_state_of(request), request.client
    try:
        if wait := state.device_limit.seconds_to_wait(peer.host if peer else None):
            raise OAuthError(
                "temporarily_unavailable",
                f"your IP address started {state.device_limit.maximum} sign-ins within a minute, the maximum;"
                f" try again in {math.ceil(wait)} s",
            )
        client = _client_id(required(await read_parameters(request), "client_id"))
        codes = await to_thread.run_sync(device_sign_ins.begin, state.catalog, client)
    except OAuthError as error:
        return error.response
    except Busy as error:
        return OAuthError("temporarily_unavailable", error.message).response
    page = f"{request.url.scheme}://{request.url.netloc}{PAGE}"
    begun = DeviceAuthorization(
        device_code=codes.device_code,
        user_code=codes.user_code,
        verification_uri=page,
        verification_uri_complete=f"{page}?user_code={codes.user_code}",
        interval=device_sign_ins.INTERVAL,
        expires_in=int(device_sign_ins.LIFETIME.total_seconds()),
    )
    return JSONResponse(begun.model_dump(), headers=NO_STORE)


def _client_id(text: str) -> str:
    """The client's id. Raises `OAuthError`."""
    if len(text) > _MAX_LENGTH or not text.isprintable():
        raise OAuthError(
            "invalid_request", f"client_id must be a name of at most {_MAX_LENGTH} printable characters"
        )
    return text
