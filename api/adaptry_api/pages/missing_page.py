"""The response for an address without a route: a page for browsers, the Hub's sentence for programs."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adaptry.core.errors import AdaptryError, InvalidRef
from adaptry.core.refs import parse_namespace
from adaptry_api.auth_policy import visitor
from adaptry_api.envelope import PAGE_HEADERS
from adaptry_api.header_text import header_text
from adaptry_api.hub.unsupported import unsupported_response
from adaptry_api.pages.page_responses import render_error, wants_html
from adaptry_api.pages.security import page_headers

_MAX_LENGTH = 120


async def unserved_response(request: Request, status: int) -> Response:
    """A browser that opens a namespace's address (`/acme`) is sent to the search for its versions. The page
    has the navigation of the visitor.
    """
    is_browser = "text/html" in request.headers.get("accept", "") and wants_html(request)
    if request.method != "GET" or not is_browser:
        return unsupported_response(request, status)
    request.scope["state"][PAGE_HEADERS] = page_headers("same-origin")
    path = str(request.scope["path"])
    try:
        namespace = parse_namespace(path.removeprefix("/"))
    except InvalidRef:
        with suppress(AdaptryError):  # visitors who are not signed in get the page without navigation
            await visitor(request)
        return render_error(request, status, f"there is no page {header_text(path, _MAX_LENGTH)}")
    return RedirectResponse(f"/?q={quote(f'namespace:{namespace}')}", 303)
