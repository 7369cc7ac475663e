"""Responses of pages: HTML from a template, or the same values as JSON.

Templates escape everything (`autoescape`) and fail on a name that does not exist.
"""

from __future__ import annotations

import http
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from adaptry import __version__
from adaptry.core.identity import Identity
from adaptry_api.errors import request_id
from adaptry_api.pages import text
from adaptry_api.pages.event_sentences import sentence_of

if TYPE_CHECKING:
    import jinja2


def wants_html(request: Request) -> bool:
    """Whether the answer should be a page. `?format=` decides, else the first of the two types that `Accept`
    names; a client that names neither gets the page.
    """
    if chosen := request.query_params.get("format"):
        return chosen not in ("json", "csv")
    accept = request.headers.get("accept", "")
    html, json_place = accept.find("text/html"), accept.find("application/json")
    return json_place < 0 or 0 <= html < json_place


def render(
    request: Request, template: str, value: BaseModel, names: Mapping[str, object], status: int = 200
) -> Response:
    """`value` as JSON, or as the page that `template` makes of it (`page`) and of `names`."""
    if not wants_html(request):
        return Response(value.model_dump_json(by_alias=True), status, media_type="application/json")
    return render_html(request, template, {"page": value, **names}, status)


def render_part(
    request: Request,
    title: str,
    template: str,
    value: BaseModel,
    names: Mapping[str, object],
    *,
    is_padded: bool = True,
) -> Response:
    """Like `render`, for a part that another page loads by htmx. Without scripts, or if a person opens
    its address, it is a page with a title.
    """
    if "hx-request" in request.headers:
        return render(request, template, value, names)
    return render(
        request, "part_page.html", value, {"title": title, "part": template, "is_padded": is_padded, **names}
    )


def render_html(
    request: Request, template: str, names: Mapping[str, object], status: int = 200
) -> HTMLResponse:
    """Renders `template` with `names` as a whole page."""
    identity: Identity | None = getattr(request.state, "identity", None)
    frame = {
        "visitor": identity,
        "is_signed_in": identity is not None and identity.token is not None,
        "path": request.scope["path"],
        "version": __version__,
        "q": request.query_params.get("q", ""),
        "host": f"{request.url.scheme}://{request.headers.get('host', '')}",
    }
    return HTMLResponse(render_text(template, {**frame, **names}), status)


def render_text(template: str, names: Mapping[str, object]) -> str:
    """Renders `template` with `names`, for parts of pages."""
    return _environment().get_template(template).render(names)


def render_error(request: Request, status: int, sentence: str) -> HTMLResponse:
    """The page for an error: what went wrong, what to try, and the request's id for the log."""
    names = {
        "status": status,
        "title": http.HTTPStatus(status).phrase,
        "sentence": sentence,
        "request": request_id(request),
    }
    is_part = "hx-request" in request.headers
    return render_html(request, "error_part.html" if is_part else "error.html", names, status)


@cache
def _environment() -> jinja2.Environment:
    import jinja2  # 2 MB with the parser, for the first page

    from adaptry_api.pages.static_files import static_url

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static_url
    environment.filters.update(text.FILTERS)
    environment.filters["sentence"] = sentence_of
    return environment


def _source(name: str) -> str:
    return files("adaptry_api.pages").joinpath("templates", name).read_text("utf-8")
