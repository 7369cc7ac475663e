"""`…/branch/{revision}`: creates and deletes branches."""

from __future__ import annotations

from pydantic import BaseModel, Field

from adaptry.core.errors import Conflict
from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.hub.addresses import MODELS, Name, Revision
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()


class HubBranchRequest(BaseModel):
    """The revision at which the branch in the address starts; `main` by default."""

    startingPoint: str | None = Field(default=None, max_length=256)  # noqa: N815  the protocol's spelling


@ROUTES.post(f"{MODELS}/branch/{{revision}}")
def branch(
    name: Name, revision: Revision, registry: CallersRegistry, body: HubBranchRequest | None = None
) -> None:
    if revision == "main":
        raise Conflict("Reference refs/heads/main already exists")
    registry.commits.create_branch(name, revision, (body and body.startingPoint) or "main")


@ROUTES.delete(f"{MODELS}/branch/{{revision}}")
def drop_branch(name: Name, revision: Revision, registry: CallersRegistry) -> None:
    registry.commits.delete_branch(name, revision)
