"""`GET /api/models-tags-by-type`: tags by type, of which there are none."""

from __future__ import annotations

from typing import Any

from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()


@ROUTES.get("/api/models-tags-by-type")
def tags_by_type(registry: CallersRegistry) -> dict[str, Any]:
    """Tags here are as people write them, of no type. (`Any`: JSON.)"""
    return {}
