"""`POST /api/validate-yaml`: called before every upload of a README, to refuse a broken card early."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel
from starlette.responses import JSONResponse

from adaptry.core.errors import Invalid
from adaptry_api.auth_policy import Caller
from adaptry_api.hub.card import read_card
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()


class ValidateYamlRequest(BaseModel):
    """A README."""

    content: str
    repoType: Literal["model", "dataset", "space"] = "model"  # noqa: N815  the protocol's spelling


@ROUTES.post("/api/validate-yaml")
def validate(body: ValidateYamlRequest, identity: Caller) -> Response:
    """400 with the fault, which clients show; nothing is stored."""
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
