"""What a browser gets whose session has ended: the sign-in page, or, for a form or a part of an open page, a
sentence in its place.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from adaptry.core.errors import AdaptryError
from adaptry_api.errors import request_id
from adaptry_api.pages.form_fields import read_form
from adaptry_api.pages.live import SIGNED_OUT_PART, page_around, signed_out_messages
from adaptry_api.pages.page_responses import render_html
from adaptry_api.routes.events import STREAM

SIGN_IN = "/-/sign-in"
_MAX_BYTES, _MAX_FIELDS = 1 << 17, 64


def signed_out_page(request: Request) -> Response:
    """The answer to a GET: for a part of an open page, a link to sign in; for a page, the sign-in page."""
    if "hx-request" in request.headers:
        return render_html(request, SIGNED_OUT_PART, {"next": page_around(request)}, 401)
    return RedirectResponse(f"{SIGN_IN}?next={quote(own_address(request), safe='')}", 303)


def signed_out_stream(request: Request) -> Response:
    """The answer to a page that connects for updates: its part is replaced, and it does not connect again."""
    return Response(signed_out_messages(request), media_type=STREAM, headers={"Cache-Control": "no-store"})


async def signed_out_form(request: Request) -> Response:
    """The answer to a form whose body is not read yet: a page that keeps its fields, to send them again."""
    try:
        fields = await read_form(request, _MAX_BYTES, _MAX_FIELDS)
    except AdaptryError:
        fields = None
    names = {"fields": fields, "address": own_address(request), "request": request_id(request)}
    return render_html(request, "signed_out.html", names, 401)


def own_address(request: Request) -> str:
    """The request's path and query."""
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.scope['path']}{query}"
