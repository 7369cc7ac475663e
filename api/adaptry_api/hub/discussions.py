"""`…/discussions`: the registry has no discussions; the list is empty, and opening one is refused."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.errors import HttpProblem
from adaptry_api.hub.addresses import MODELS, Name
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.uploads import refuse_pull_request

ROUTES = hub_router()


class DiscussionRequest(BaseModel):
    """A discussion or a pull request. Its text is not used."""

    pullRequest: bool = False  # noqa: N815  the protocol's spelling


@ROUTES.get(f"{MODELS}/discussions")
def discussions(name: Name, registry: CallersRegistry) -> dict[str, Any]:
    """An empty list of discussions. (`Any`: JSON.)"""
    registry.adapters.get(name)
    return {"discussions": [], "count": 0, "start": 0}


@ROUTES.post(f"{MODELS}/discussions")
def discuss(name: Name, registry: CallersRegistry, body: DiscussionRequest | None = None) -> None:
    """Newer clients open a pull request in this way before they upload to it."""
    registry.adapters.get(name)
    if body is None or body.pullRequest:
        refuse_pull_request()
    raise HttpProblem(501, "this registry has no discussions: describe the adapter in its README")
