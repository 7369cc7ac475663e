"""`…/discussions`: the registry has no discussions; the list is empty, and opening one is refused."""

from __future__ import annotations

from typing import Any

from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.hub.addresses import MODELS, Name
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.uploads import refuse_pull_request

ROUTES = hub_router()


@ROUTES.get(f"{MODELS}/discussions")
def discussions(name: Name, registry: CallersRegistry) -> dict[str, Any]:
    """An empty list of discussions. (`Any`: JSON.)"""
    registry.adapters.get(name)
    return {"discussions": [], "count": 0, "start": 0}


@ROUTES.post(f"{MODELS}/discussions")
def discuss(name: Name, registry: CallersRegistry) -> None:
    """Newer clients open a pull request in this way before they upload to it."""
    registry.adapters.get(name)
    refuse_pull_request()
