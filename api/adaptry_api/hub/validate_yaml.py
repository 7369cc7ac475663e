"""`POST /api/validate-yaml`: called before every upload of a README, to refuse a broken card early."""

from __future__ import annotations

from typing import Any, Literal

from anyio import to_thread
from fastapi import Request, Response
from pydantic import BaseModel, TypeAdapter
from starlette.responses import JSONResponse

from adaptry.core.errors import Invalid
from adaptry_api.auth_policy import PUBLIC, admit, app_state_of
from adaptry_api.bodies import StrictRequest
from adaptry_api.hub.card import read_card
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()


class ValidateYamlRequest(BaseModel):
    """A README whose YAML is to be validated."""

    content: str
    repoType: Literal["model", "dataset", "space"] = "model"  # noqa: N815  the protocol's spelling


_BODY = TypeAdapter(ValidateYamlRequest)


@ROUTES.post("/api/validate-yaml", dependencies=[PUBLIC])
async def validate(request: Request) -> Response:
    """Responds with 400 and the fault, which clients show; nothing is stored.

    Cards of Python's `huggingface_hub` are sent here without a token; these are not read, and pass. The
    upload that follows is checked in any case.
    """
    if "authorization" not in request.headers:
        return JSONResponse({"errors": [], "warnings": []})
    await admit(request)
    slots = app_state_of(request).parse_slots
    body = await StrictRequest(request.scope, request.receive, slots, kind=_BODY).json()
    if not isinstance(body, ValidateYamlRequest):
        raise Invalid("expected an object with the text of a README in `content`")
    return await to_thread.run_sync(_validated, body)


def _validated(body: ValidateYamlRequest) -> Response:
    try:
        card = read_card(body.content.encode("utf-8", "surrogatepass"))
        _check_results(card.data.get("model-index"))
    except Invalid as error:
        return JSONResponse(
            {"errors": [{"message": error.message}], "warnings": [], "error": error.message}, 400
        )
    warnings = [] if card.data else [{"message": "empty or missing YAML at the head of README.md"}]
    return JSONResponse({"errors": [], "warnings": warnings})


def _check_results(index: Any) -> None:
    """Raises `Invalid` if `model-index` is not a list of models: its metrics would be lost. (`Any`: YAML.)"""
    if index is None:
        return
    if not isinstance(index, list) or not all(isinstance(model, dict) for model in index):
        raise Invalid(
            "model-index is not a list of models, each with a name and results; correct it, or leave it out"
        )
