"""The API reference: Swagger UI over this server's own OpenAPI description."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from adaptry_api.auth_policy import Visitor
from adaptry_api.pages.page_responses import render_html
from adaptry_api.pages.page_routes import page_router

ROUTES = page_router()


@ROUTES.get("/-/docs", response_model=None)
def show_reference(request: Request, identity: Visitor) -> Response:
    """Every operation, with a form that tries it with a token."""
    return render_html(request, "reference.html", {})
