"""Sessions of browsers: a signed cookie that stands for a token.

A session contains the hash of the token with which it began. It has that token's rights at every request, and
ends when the token is revoked or expires, after twelve hours, or when its cookie is deleted. Nothing is
stored, and every server of a registry accepts it. The cookie is read on pages only: no route of the REST
interface or of the Hub protocol accepts it, so a page of another origin can do nothing with it there.
"""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from adaptry.core.errors import Unauthenticated
from adaptry.core.identity import Identity
from adaptry_api.app_state import AppState
from adaptry_api.signed_grants import SignedStatement

SESSION_SECONDS = 12 * 3600
_COOKIE = "adaptry_session"
_SECURE_COOKIE = f"__Host-{_COOKIE}"
"""The cookie's name over TLS: browsers accept one with this prefix only from the host itself."""


class BrowserSession(SignedStatement):
    """A session of the token whose hash is `by`."""


def begin_session(state: AppState, request: Request, response: Response, by: str) -> Identity:
    """Sets the cookie of a new session for the token with the hash `by`. Raises `Unauthenticated`."""
    identity = state.identity_of_token(by)
    text = state.signer.sign(BrowserSession(by=by, until=int(time.time()) + SESSION_SECONDS))
    is_secure = request.url.scheme == "https"
    response.set_cookie(
        _SECURE_COOKIE if is_secure else _COOKIE,
        text,
        max_age=SESSION_SECONDS,
        path="/",
        secure=is_secure,
        httponly=True,
        samesite="lax",
    )
    return identity


def end_session(request: Request, response: Response) -> None:
    """Deletes the session's cookie."""
    is_secure = request.url.scheme == "https"
    name = _SECURE_COOKIE if is_secure else _COOKIE
    response.delete_cookie(name, path="/", secure=is_secure, httponly=True, samesite="lax")


def has_session_cookie(request: Request) -> bool:
    return _cookie(request) is not None


def session_token(state: AppState, request: Request) -> str | None:
    """The hash of the token of the request's session; None without one. The token may have ended."""
    text = _cookie(request)
    try:
        return state.signer.verify(BrowserSession, text, time.time()).by if text is not None else None
    except Unauthenticated:
        return None


def session_identity(state: AppState, request: Request) -> Identity | None:
    """The identity of the request's session now; None without a session, or if it has ended."""
    by = session_token(state, request)
    try:
        return state.identity_of_token(by) if by is not None else None
    except Unauthenticated:
        return None


def _cookie(request: Request) -> str | None:
    return request.cookies.get(_SECURE_COOKIE if request.url.scheme == "https" else _COOKIE)
