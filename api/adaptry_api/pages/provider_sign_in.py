"""Signing in at the identity provider: the redirect to it, and the answer that it redirects back with.

State, nonce and PKCE verifier of a sign-in are in a signed cookie of ten minutes, so that the answer is
accepted only in the browser that began it, once.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated

from anyio import to_thread
from fastapi import Query
from itsdangerous import BadData, URLSafeSerializer
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adaptry.core.errors import NotFound, Unauthenticated
from adaptry.core.identity import Identity
from adaptry.storage import sign_ins
from adaptry_api.auth_policy import PUBLIC, app_state_of
from adaptry_api.pages.page_routes import PROVIDER_SIGN_IN, page_router
from adaptry_api.pages.sign_in import own_path
from adaptry_api.sessions import begin_session
from adaptry_api.sign_in.provider import OpenIdProvider

ROUTES = page_router()
CALLBACK = f"{PROVIDER_SIGN_IN}/callback"
_COOKIE, _SECONDS, _MAX_COOKIE = "adaptry_sign_in", 600, 4096
_Text = Annotated[str | None, Query(max_length=_MAX_COOKIE)]


class BegunSignIn(BaseModel, frozen=True):
    """A sign-in that a browser began; `until` is a Unix time."""

    state: str
    nonce: str
    verifier: str
    next: str
    until: int


@ROUTES.get(PROVIDER_SIGN_IN, dependencies=[PUBLIC])
async def begin_provider_sign_in(
    request: Request, next: Annotated[str, Query(max_length=1024)] = "/"
) -> Response:
    """Redirects to the identity provider."""
    provider = _provider(request)
    begun = BegunSignIn(
        state=secrets.token_urlsafe(24),
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
        next=own_path(next),
        until=int(time.time()) + _SECONDS,
    )
    url = await to_thread.run_sync(
        provider.authorization_url,
        _callback(request),
        begun.state,
        begun.nonce,
        begun.verifier,
        limiter=app_state_of(request).provider_calls,
    )
    response = RedirectResponse(url, 303)
    _set_cookie(request, response, str(_serializer(request).dumps(begun.model_dump())), _SECONDS)
    return response


@ROUTES.get(CALLBACK, dependencies=[PUBLIC])
async def finish_provider_sign_in(
    request: Request, code: _Text = None, state: _Text = None, iss: _Text = None, error: _Text = None
) -> Response:
    """Exchanges the provider's code, and begins a session."""
    provider, begun, app_state = _provider(request), _begun(request), app_state_of(request)
    if state != begun.state or (iss is not None and iss != provider.issuer):
        raise Unauthenticated("this answer does not belong to a sign-in of this browser; sign in again")
    if error is not None or code is None:
        raise Unauthenticated(f"the identity provider did not sign you in: {(error or 'no code')[:80]!a}")
    response = RedirectResponse(begun.next, 303)

    def finish() -> Identity:
        user = provider.user_of_code(code, _callback(request), begun.nonce, begun.verifier)
        return begin_session(app_state, request, response, sign_ins.sign_in(app_state.catalog, user))

    identity = await to_thread.run_sync(finish, limiter=app_state.provider_calls)
    app_state.authenticator.forget(identity.principal)  # groups may have changed
    _set_cookie(request, response, "", 0)
    return response


def _begun(request: Request) -> BegunSignIn:
    """The sign-in that this browser began. Raises `Unauthenticated`."""
    text = request.cookies.get(_cookie_name(request), "")
    try:
        found = BegunSignIn.model_validate(
            _serializer(request).loads(text if len(text) <= _MAX_COOKIE else "")
        )
    except (BadData, ValidationError):
        found = None
    if found is None or found.until <= time.time():
        raise Unauthenticated("this sign-in was not started in this browser, or has expired; sign in again")
    return found


def _serializer(request: Request) -> URLSafeSerializer:
    return URLSafeSerializer(app_state_of(request).signer.derived_key("sign-in"))


def _provider(request: Request) -> OpenIdProvider:
    """The identity provider. Raises `NotFound` on a server without one."""
    provider = app_state_of(request).openid_provider
    if provider is None:
        raise NotFound("this server has no identity provider; sign in with a token")
    return provider


def _callback(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}{CALLBACK}"


def _cookie_name(request: Request) -> str:
    return f"__Host-{_COOKIE}" if request.url.scheme == "https" else _COOKIE


def _set_cookie(request: Request, response: Response, value: str, seconds: int) -> None:
    response.set_cookie(
        _cookie_name(request),
        value,
        max_age=seconds,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",  # the provider's redirect is a navigation, with which browsers send it
    )
