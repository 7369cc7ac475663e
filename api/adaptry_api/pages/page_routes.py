"""Routes of pages: GET for people, with errors as pages, and POST for forms.

An error is shown as a page to a client that names HTML in `Accept`, as browsers do, and in the API's form to
others. A person without a session is sent to the sign-in page, and from there back to where they wanted to
go. An address with an adapter's former name leads to the same page of its new name.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from adaptry.core.errors import AdaptryError, Invalid, InvalidRef, NotFound, Unauthenticated
from adaptry.core.refs import AdapterName
from adaptry_api.auth_policy import GuardedRoute, admit, app_state_of, visitor, visitors_registry
from adaptry_api.denials import set_denial_reason
from adaptry_api.envelope import PAGE_HEADERS
from adaptry_api.errors import HttpProblem, describe_validation_error, error_response, request_id, status_of
from adaptry_api.pages.page_responses import render_error, wants_html
from adaptry_api.pages.renamed_addresses import address_after_renames
from adaptry_api.pages.security import page_headers, require_known_host, require_same_origin
from adaptry_api.pages.signed_out import SIGN_IN, signed_out_form, signed_out_page, signed_out_stream
from adaptry_api.route_threads import run_in_own_threads
from adaptry_api.routes.events import STREAM

PROVIDER_SIGN_IN = f"{SIGN_IN}/provider"
_READS = ("GET", "HEAD")
_HEADERS = page_headers("same-origin")


class PageRoute(GuardedRoute):
    """A route of a page or form. Its access rule is `visitor`, or `public` for pages open to everyone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        is_public = not any(dependant.call is visitor for dependant in self._dependants)

        async def guarded(request: Request) -> Response:
            request.scope["state"].setdefault(PAGE_HEADERS, _HEADERS)
            try:
                state = app_state_of(request)
                require_known_host(request, state.has_host_list)
                if request.method not in _READS:
                    require_same_origin(request)
                if not is_public:
                    try:
                        await admit(request, visitor)
                    except Unauthenticated as error:
                        return await _signed_out(request, error)
                return await handle(request)
            except NotFound as error:
                if not is_public and request.method in _READS and (moved := await _after_renames(request)):
                    return RedirectResponse(moved, 307)
                set_denial_reason(request.scope, error)
                return _error(request, error)
            except AdaptryError as error:
                set_denial_reason(request.scope, error)
                return _error(request, error)
            except RequestValidationError as error:
                return _error(request, Invalid(describe_validation_error(error)))
            except HttpProblem as error:
                return _error(request, Invalid(str(error.detail)), error.status_code)

        return guarded


class AdapterRoute(PageRoute):
    """A page at an adapter's plain address. Other addresses of two parts are answered as without pages."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if match is not Match.FULL:
            return Match.NONE, {}
        given = found["path_params"]
        try:
            AdapterName.parse(f"{unquote(given['namespace'])}/{unquote(given['name'])}")
        except InvalidRef:
            return Match.NONE, {}
        return match, found


def page_router(route_class: type[PageRoute] = PageRoute) -> APIRouter:
    """A router for pages, which the API's description leaves out."""
    return APIRouter(route_class=route_class, include_in_schema=False)


async def _after_renames(request: Request) -> str | None:
    registry = await visitors_registry(request, await visitor(request))
    return await run_in_own_threads("reads", partial(address_after_renames, request, registry))


def _error(request: Request, error: AdaptryError, status: int | None = None) -> Response:
    if "text/html" not in request.headers.get("accept", "") or not wants_html(request):
        return error_response(error, request_id(request))
    if isinstance(error, Unauthenticated) and request.method in _READS:
        return signed_out_page(request)
    return render_error(request, status or status_of(error), error.public_message)


async def _signed_out(request: Request, error: Unauthenticated) -> Response:
    """The answer to a request whose body is not read yet."""
    set_denial_reason(request.scope, error)
    accepted = request.headers.get("accept", "")
    if request.method in _READS and STREAM in accepted:
        return signed_out_stream(request)
    if request.method in _READS or "text/html" not in accepted or not wants_html(request):
        return _error(request, error)
    return await signed_out_form(request)
