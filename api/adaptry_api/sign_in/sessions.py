"""`Session`: how a request of a signed-in browser becomes an identity, and is protected against forgery.

The cookie is `__Host-adaptry-session` over https and `adaptry-session` over http: HttpOnly, SameSite=Lax, for
this host only. A request with an `Authorization` header is identified by that alone.

A request that changes something must come from a page of this server: its `Origin` is this server's, and it
carries the session's `csrf_token`, in the header `X-CSRF-Token` or, where the route reads a form with
`signed_in_form`, in the field `csrf_token`.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from anyio import to_thread
from fastapi import Request
from starlette.responses import Response

from adaptry.core.errors import Invalid, PermissionDenied, Unauthenticated
from adaptry.core.identity import Identity
from adaptry.storage import sign_ins, tokens
from adaptry_api.auth import BELIEVED_SECONDS
from adaptry_api.bodies import read_body

if TYPE_CHECKING:
    from adaptry_api.app_state import AppState

COOKIE = "adaptry-session"
CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf_token"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_REMEMBERED = 4096
_FORM_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser; pages put `csrf_token` into their forms and requests."""

    identity: Identity
    csrf_token: str
    expires_at: datetime


class SessionReader:
    """Finds sessions; valid ones are cached for five seconds, as tokens are."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._known: dict[str, tuple[float, Session]] = {}

    async def read(self, secret: str) -> Session:
        """Raises `Unauthenticated`."""
        key = tokens.hash_token(secret)
        believed = self._known.get(key)
        if believed and believed[0] > time.monotonic():
            return believed[1]
        now, known = time.monotonic(), self._known
        found = await to_thread.run_sync(sign_ins.identify, self._state.catalog, secret)
        csrf_token = hmac.digest(self._state.signer.derived_key("csrf"), key.encode(), "sha256").hex()
        session = Session(found.identity, csrf_token, found.expires_at)
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = (now + BELIEVED_SECONDS, session)
        return session

    def clear_cache(self) -> None:
        self._known = {}


def session_secret(request: Request) -> str | None:
    """What the request's cookie holds, if it has one."""
    return request.cookies.get(cookie_name(request, COOKIE))


async def current_session(request: Request) -> Session | None:
    """The session of the browser that sent the request; None if it has none, or it is over."""
    secret = session_secret(request)
    if secret is None:
        return None
    try:
        return await _reader(request).read(secret)
    except Unauthenticated:
        return None


async def identify_by_cookie(request: Request, secret: str) -> Identity:
    """The identity of the cookie's session. Raises `Unauthenticated`, and `PermissionDenied` for a request
    that another site may have caused.
    """
    session = await _reader(request).read(secret)
    if request.method not in _SAFE:
        require_own_page(request)
        _require_csrf_token(session, request.headers.get(CSRF_HEADER, ""))
    return session.identity


async def signed_in_form(request: Request) -> tuple[Session, dict[str, str]]:
    """The session, and the fields of a form that a page of this server sent. Raises `Unauthenticated`,
    `PermissionDenied`, `Invalid`.
    """
    session = await current_session(request)
    if session is None:
        raise Unauthenticated("you are not signed in any more; sign in again")
    require_own_page(request)
    data = await read_body(request, _FORM_LIMIT)
    try:
        form = dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=200))
    except ValueError as error:
        raise Invalid("the form is malformed") from error
    _require_csrf_token(session, form.get(CSRF_FIELD, ""))
    return session, form


def require_own_page(request: Request) -> None:
    """Raises `PermissionDenied` unless a page of this server sent the request: every browser says so."""
    if request.headers.get("origin") != own_origin(request):
        raise PermissionDenied("this request did not come from a page of this registry")


def own_origin(request: Request) -> str:
    """The server's address as the browser knows it, without a path."""
    return f"{request.url.scheme}://{request.url.netloc}"


def cookie_name(request: Request, name: str) -> str:
    """Over https, with the prefix with which browsers bind a cookie to this host (RFC 6265bis §4.1.3)."""
    return f"__Host-{name}" if request.url.scheme == "https" else name


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """Sets a cookie that pages cannot read and other sites do not cause to be sent, but by links."""
    is_https = request.url.scheme == "https"
    response.set_cookie(
        cookie_name(request, name), value, seconds, path="/", secure=is_https, httponly=True, samesite="lax"
    )


def delete_cookie(request: Request, response: Response, name: str) -> None:
    set_cookie(request, response, name, "", 0)


def _reader(request: Request) -> SessionReader:
    reader: SessionReader = request.app.state.adaptry.sessions
    return reader


def _require_csrf_token(session: Session, shown: str) -> None:
    if not hmac.compare_digest(shown.encode(), session.csrf_token.encode()):
        raise PermissionDenied("this request has no valid CSRF token; reload the page and try again")
