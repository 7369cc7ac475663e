"""The page on which a signed-in user approves a program that shows a code."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from adaptry.core.errors import NotFound
from adaptry.storage import device_sign_ins
from adaptry_api.auth_policy import Visitor, app_state_of
from adaptry_api.oauth.device_route import PAGE
from adaptry_api.pages.form_fields import read_form
from adaptry_api.pages.page_responses import render_html
from adaptry_api.pages.page_routes import page_router
from adaptry_api.route_threads import run_in_own_threads

ROUTES = page_router()


@ROUTES.get(PAGE)
async def show_device(
    request: Request, visitor: Visitor, user_code: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """The form for the code."""
    return render_html(request, "device.html", {"code": user_code, "problem": "", "outcome": ""})


@ROUTES.post(PAGE)
async def decide_device(request: Request, visitor: Visitor) -> Response:
    """Approves or denies the program that shows the code."""
    form = await read_form(request)
    code, is_approved = form.get("user_code", ""), form.get("decision") == "approve"
    catalog = app_state_of(request).catalog
    try:
        await run_in_own_threads(
            "writers", partial(device_sign_ins.decide, catalog, visitor, code, is_approved)
        )
    except NotFound as error:
        return render_html(
            request, "device.html", {"code": code, "problem": error.message, "outcome": ""}, 404
        )
    outcome = "approved" if is_approved else "denied"
    return render_html(request, "device.html", {"code": code, "problem": "", "outcome": outcome})
