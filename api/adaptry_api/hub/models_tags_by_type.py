"""`GET /api/models-tags-by-type`: an empty object, since tags here have no types."""

from __future__ import annotations

from typing import Any

from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()


@ROUTES.get("/api/models-tags-by-type")
def tags_by_type(registry: CallersRegistry) -> dict[str, Any]:
    """An empty object. (`Any`: JSON.)"""
    return {}
