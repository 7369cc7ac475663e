"""`…/tag/{revision}`: creates and deletes tags."""

from __future__ import annotations

from pydantic import BaseModel, Field

from adaptry.core.errors import Conflict, PermissionDenied, RevisionNotFound
from adaptry.core.hub_revision import parse_hub_revision
from adaptry.core.refs import AdapterName
from adaptry.registry.commits import Commits
from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.hub.addresses import MODELS, Name, Revision
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()


class HubTagRequest(BaseModel):
    """The tag to create at the revision in the address."""

    tag: str = Field(min_length=1, max_length=256)
    message: str | None = Field(default=None, max_length=4096)


@ROUTES.post(f"{MODELS}/tag/{{revision}}")
def tag(name: Name, revision: Revision, body: HubTagRequest, registry: CallersRegistry) -> None:
    if _is_version(registry.commits, name, body.tag):
        raise Conflict(f"{body.tag} is already a version of {name}; the registry numbers versions itself")
    registry.commits.create_tag(name, body.tag, revision, body.message or "")


@ROUTES.delete(f"{MODELS}/tag/{{revision}}")
def drop_tag(name: Name, revision: Revision, registry: CallersRegistry) -> None:
    if _is_version(registry.commits, name, revision):
        raise PermissionDenied(f"{revision} is a version of {name}, and versions cannot be deleted")
    registry.commits.delete_tag(name, revision)


def _is_version(commits: Commits, name: AdapterName, tag: str) -> bool:
    if not tag.startswith("v") or parse_hub_revision(tag).number is None:
        return False
    try:
        commits.get(name, f"refs/tags/{tag}")
    except RevisionNotFound:
        return False
    return True
