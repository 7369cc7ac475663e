"""Revisions: pushed as the exact bytes of a manifest, since their digest is the revision; and the states of
those that are versions.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Request, Response
from pydantic import Base64Bytes, BaseModel, Field

from adaptry.registry import protocol
from adaptry.registry.records import PushOptions, PushResult, StateChange, VersionInfo
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.downloads import FOREVER
from adaptry_api.errors import HttpProblem
from adaptry_api.etags import if_match_generation
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Name, Revision

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/revisions", "revisions")


class PushRequest(BaseModel, extra="forbid"):
    """`manifest` is base64 of the manifest's canonical bytes; its files must have been uploaded."""

    manifest: Annotated[Base64Bytes, Field(max_length=protocol.JSON_LIMIT)]
    options: PushOptions = PushOptions()


class StateChangeRequest(StateChange, extra="forbid"):
    """The new state, the reason, and the version to use instead."""


@ROUTES.post("")
def push(name: Name, body: PushRequest, response: Response, registry: IdempotentRegistry) -> PushResult:
    """201 for a new version; 200 where this revision was there already."""
    pushed = registry.versions.put(name, body.manifest, body.options)
    response.status_code = 201 if pushed.is_new else 200
    return pushed


@ROUTES.get("/{revision}/manifest", response_class=Response)
def manifest(name: Name, revision: Revision, registry: CallersRegistry) -> Response:
    """The canonical bytes whose SHA-256 is the revision."""
    tree = registry.commits.tree(name, revision)
    headers = {"ETag": f'"{revision.hex}"', "Cache-Control": FOREVER}
    return Response(tree.to_bytes(), headers=headers, media_type="application/json")


@ROUTES.put("/{revision}/state")
def set_state(
    request: Request,
    response: Response,
    name: Name,
    revision: Revision,
    body: StateChangeRequest,
    registry: CallersRegistry,
) -> VersionInfo:
    """Needs `If-Match: "<generation>"`, that of the version's `standing`, or `"0"` where it has none."""
    was = if_match_generation(request)
    if was is None:
        raise HttpProblem(
            428, 'say what you saw: If-Match: "<generation>", or "0" for a state that never changed'
        )
    change = StateChange(state=body.state, reason=body.reason, successor=body.successor)
    version = registry.versions.set_state(name, revision, change, was)
    response.headers["ETag"] = f'"{version.state_generation}"'
    return version
