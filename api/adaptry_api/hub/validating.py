"""`POST /api/validate-yaml`: asked before every upload of a README, so that a broken card is refused first."""

from __future__ import annotations

from typing import Literal

from fastapi import Response
from pydantic import BaseModel
from starlette.responses import JSONResponse

from adaptry.errors import Invalid
from adaptry_api.guard import Caller
from adaptry_api.hub.card import read_card
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()


class Text(BaseModel):
    """A README."""

    content: str
    repoType: Literal["model", "dataset", "space"] = "model"  # noqa: N815  the protocol's spelling


@ROUTES.post("/api/validate-yaml")
def validate(body: Text, identity: Caller) -> Response:
    """400 with the fault, which clients show; nothing is kept."""
    try:
        card = read_card(body.content.encode("utf-8", "surrogatepass"))
    except Invalid as error:
        return JSONResponse(
            {"errors": [{"message": error.message}], "warnings": [], "error": error.message}, 400
        )
    warnings = [] if card.data else [{"message": "empty or missing YAML at the head of README.md"}]
    return JSONResponse({"errors": [], "warnings": warnings})
