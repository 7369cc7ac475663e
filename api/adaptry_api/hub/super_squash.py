"""`POST …/super-squash/{revision}`: replaces the history of a branch with one commit."""

from __future__ import annotations

from pydantic import BaseModel, Field

from adaptry.registry.commit_info import CommitNote
from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.hub.addresses import MODELS, Name, Revision
from adaptry_api.hub.commit_tree import commit_title
from adaptry_api.hub.refusals import hub_router

ROUTES = hub_router()


class HubSquashRequest(BaseModel):
    """The message of the new commit."""

    message: str | None = Field(default=None, max_length=4096)


@ROUTES.post(f"{MODELS}/super-squash/{{revision}}")
def squash(
    name: Name, revision: Revision, registry: CallersRegistry, body: HubSquashRequest | None = None
) -> None:
    message = (body and body.message) or ""
    title = commit_title(message, f"Super-squash branch '{revision[:80]}'")
    registry.commits.squash(name, revision, CommitNote(title=title))
