"""Signing in with a token, or with the link that `adaptry serve` prints; signing out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from anyio import to_thread
from fastapi import Query
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from adaptry.core.errors import Unauthenticated
from adaptry.storage import sign_ins, tokens
from adaptry_api.auth_policy import PUBLIC, app_state_of
from adaptry_api.denials import set_denial_reason
from adaptry_api.envelope import PAGE_HEADERS
from adaptry_api.pages.form_fields import read_form
from adaptry_api.pages.page_responses import render_html
from adaptry_api.pages.page_routes import PROVIDER_SIGN_IN, page_router
from adaptry_api.pages.security import page_headers
from adaptry_api.pages.signed_out import SIGN_IN
from adaptry_api.sessions import begin_session, end_session, session_token
from adaptry_api.sign_in_link import SIGN_IN_LINK, redeem_sign_in_code

ROUTES = page_router()
_Next = Annotated[str, Query(max_length=2048)]


@ROUTES.get(SIGN_IN, dependencies=[PUBLIC])
async def show_sign_in(request: Request, next: _Next = "/") -> Response:
    """The form for a token."""
    return render_html(
        request,
        "sign_in.html",
        {"next": own_path(next), "problem": "", "provider": _provider_url(request, next)},
    )


@ROUTES.post(SIGN_IN, dependencies=[PUBLIC])
async def sign_in(request: Request) -> Response:
    """Begins a session for the token in the form, and redirects to the page that the person requested."""
    form = await read_form(request)
    secret, following = form.get("token", "").strip(), own_path(form.get("next", "/"))
    state = app_state_of(request)
    response = RedirectResponse(following, 303)
    try:
        await to_thread.run_sync(tokens.identify, state.catalog, secret)
        by = tokens.hash_token(secret)
        await to_thread.run_sync(begin_session, state, request, response, by)
    except Unauthenticated as error:
        set_denial_reason(request.scope, error)
        provider = _provider_url(request, following)
        names = {"next": following, "problem": error.public_message, "provider": provider}
        return render_html(request, "sign_in.html", names, 401)
    return response


@ROUTES.get(SIGN_IN_LINK, dependencies=[PUBLIC])
async def show_sign_in_link(request: Request, next: _Next = "/") -> Response:
    """The page that a sign-in link opens. Its script sends the code, which is in the URL's fragment."""
    request.scope["state"][PAGE_HEADERS] = page_headers("no-referrer")
    return render_html(request, "sign_in_link.html", {"next": own_path(next)})


@ROUTES.post(SIGN_IN_LINK, dependencies=[PUBLIC])
async def redeem_sign_in_link(request: Request) -> Response:
    """Exchanges the code of a sign-in link for a session, once. Raises `Unauthenticated`."""
    form = await read_form(request)
    state, response = app_state_of(request), JSONResponse({})
    by = await to_thread.run_sync(redeem_sign_in_code, state.folder, form.get("code", ""))
    await to_thread.run_sync(begin_session, state, request, response, by)
    return response


@ROUTES.post("/-/sign-out", dependencies=[PUBLIC])
async def sign_out(request: Request) -> Response:
    """Ends the browser's session, and the token that signing in at the identity provider made for it."""
    state, response = app_state_of(request), RedirectResponse(SIGN_IN, 303)
    by = session_token(state, request)
    if by is not None:
        await to_thread.run_sync(sign_ins.sign_out, state.catalog, by)
    end_session(request, response)
    return response


def own_path(text: str) -> str:
    """`text` if it is an address of this server, without its host; else `/`.

    Browsers read `//host` and `/\\host` as another host, and skip tabs and line breaks in an address.
    """
    is_own = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_own else "/"


def _provider_url(request: Request, next: str) -> str | None:
    """The address where signing in at the identity provider begins; None on a server without one."""
    if app_state_of(request).openid_provider is None:
        return None
    return f"{PROVIDER_SIGN_IN}?{urlencode({'next': own_path(next)})}"
