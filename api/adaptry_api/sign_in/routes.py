"""`/sign-in`, its callback, and `/sign-out`: for browsers, which are redirected.

State, nonce and PKCE verifier of a sign-in are in a signed cookie of ten minutes, so that the answer is
accepted only in the browser that began it, once. The page to return to is a path of this server.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import Query, Request
from itsdangerous import BadData, URLSafeSerializer
from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse, RedirectResponse, Response

from adaptry.core.errors import NotFound, Unauthenticated
from adaptry.storage import sign_ins
from adaptry_api.auth_policy import PUBLIC, app_state_of, guarded_router
from adaptry_api.sign_in.provider import OpenIdProvider
from adaptry_api.sign_in.sessions import (
    COOKIE,
    cookie_name,
    current_session,
    delete_cookie,
    own_origin,
    session_secret,
    set_cookie,
    signed_in_form,
)

ROUTES = guarded_router()
_BEGUN, _SECONDS = "adaptry-sign-in", 600
_LONGEST = 4096
Text = Annotated[str | None, Query(max_length=_LONGEST)]


class BegunSignIn(BaseModel, frozen=True):
    """A sign-in that a browser began; `until` is a Unix time."""

    state: str
    nonce: str
    verifier: str
    next: str
    until: int


@ROUTES.get("/sign-in", dependencies=[PUBLIC], include_in_schema=False)
def sign_in(request: Request, next: Text = None) -> Response:
    """Redirects to the identity provider, which redirects to the callback."""
    provider = _provider(request)
    begun = BegunSignIn(
        state=secrets.token_urlsafe(24),
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
        next=own_path(next),
        until=int(time.time()) + _SECONDS,
    )
    url = provider.authorization_url(_callback(request), begun.state, begun.nonce, begun.verifier)
    response = _redirect(url)
    set_cookie(request, response, _BEGUN, str(_serializer(request).dumps(begun.model_dump())), _SECONDS)
    return response


@ROUTES.get("/sign-in/callback", dependencies=[PUBLIC], include_in_schema=False)
async def finish_sign_in(
    request: Request,
    code: Text = None,
    state: Text = None,
    iss: Text = None,
    error: Text = None,
) -> Response:
    """Exchanges the provider's code, and sets the session's cookie."""
    provider, begun = _provider(request), _begun(request)
    if state != begun.state or (iss is not None and iss != provider.issuer):
        raise Unauthenticated("this answer does not belong to a sign-in of this browser; sign in again")
    if error is not None or code is None:
        raise Unauthenticated(f"the identity provider did not sign you in: {(error or 'no code')[:80]!a}")
    catalog, callback = app_state_of(request).catalog, _callback(request)

    def finish() -> str:
        user = provider.user_of_code(code, callback, begun.nonce, begun.verifier)
        return sign_ins.sign_in(catalog, user)

    secret = await to_thread.run_sync(finish)
    response = _redirect(begun.next)
    delete_cookie(request, response, _BEGUN)
    set_cookie(request, response, COOKIE, secret, int(sign_ins.LIFETIME.total_seconds()))
    return response


@ROUTES.get("/sign-in/session", dependencies=[PUBLIC], include_in_schema=False)
async def show_session(request: Request) -> Response:
    """Who is signed in, and the CSRF token for scripts of this server's own pages."""
    session = await current_session(request)
    if session is None:
        raise Unauthenticated("nobody is signed in in this browser")
    shown = {
        "user": session.identity.name,
        "csrf_token": session.csrf_token,
        "expires_at": session.expires_at.isoformat(),
    }
    return JSONResponse(shown, headers={"Cache-Control": "no-store"})


@ROUTES.post("/sign-out", dependencies=[PUBLIC], include_in_schema=False)
async def sign_out(request: Request) -> Response:
    """Ends the session. Takes the form field `csrf_token`."""
    await signed_in_form(request)
    secret, state = session_secret(request), app_state_of(request)
    assert secret is not None, "a session was found by it"
    await to_thread.run_sync(sign_ins.sign_out, state.catalog, secret)
    state.sessions.clear_cache()
    response = _redirect("/")
    delete_cookie(request, response, COOKIE)
    return response


def own_path(text: str | None) -> str:
    """A path of this server; `/` for anything that could lead a browser elsewhere."""
    if text is None or not text.isascii() or not text.isprintable() or "\\" in text:
        return "/"
    parts = urlsplit(text)
    is_own = text.startswith("/") and not text.startswith("//") and not parts.scheme and not parts.netloc
    return text if is_own else "/"


def _begun(request: Request) -> BegunSignIn:
    """Raises `Unauthenticated`."""
    text = request.cookies.get(cookie_name(request, _BEGUN), "")
    try:
        found = BegunSignIn.model_validate(_serializer(request).loads(text if len(text) <= _LONGEST else ""))
    except (BadData, ValidationError):
        found = None
    if found is None or found.until <= time.time():
        raise Unauthenticated("this sign-in was not begun in this browser, or is over; sign in again")
    return found


def _serializer(request: Request) -> URLSafeSerializer:
    return URLSafeSerializer(app_state_of(request).signer.derived_key("sign-in"))


def _provider(request: Request) -> OpenIdProvider:
    """Raises `NotFound` on a server without an identity provider."""
    provider = app_state_of(request).openid_provider
    if provider is None:
        raise NotFound("this server has no identity provider; use a token")
    return provider


def _callback(request: Request) -> str:
    return f"{own_origin(request)}/sign-in/callback"


def _redirect(url: str) -> RedirectResponse:
    return RedirectResponse(url, 303, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
