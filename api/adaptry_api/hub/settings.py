"""`PUT …/settings`: changes the visibility of an adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from adaptry.core.errors import Unsupported
from adaptry.core.identity import Visibility
from adaptry.registry.records import AdapterEdit
from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.hub.addresses import MODELS, Name
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.repos import visibility_of

ROUTES = hub_router()


class RepoSettingsRequest(BaseModel):
    """The settings to change."""

    visibility: Visibility | None = None
    private: bool | None = None
    gated: Literal["auto", "manual", False] | None = None


@ROUTES.put(f"{MODELS}/settings")
def change(name: Name, body: RepoSettingsRequest, registry: CallersRegistry) -> None:
    if body.gated:
        raise Unsupported("adapters cannot be gated: make the adapter private, and give readers a token")
    registry.adapters.edit(name, AdapterEdit(visibility=visibility_of(body.visibility, body.private)))
