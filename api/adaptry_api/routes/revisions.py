"""Revisions, pushed as the exact bytes of a manifest, whose digest identifies the revision; and the states of
versions.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Response
from pydantic import Base64Bytes, BaseModel, Field

from adaptry.core.digest import Digest
from adaptry.core.manifest import Manifest
from adaptry.registry import protocol
from adaptry.registry.records import PushOptions, PushResult, StateChange, VersionInfo
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.downloads import FOREVER
from adaptry_api.etags import SeenGeneration
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Name, Revision

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/revisions", "revisions")


class PushRequest(BaseModel, extra="forbid"):
    """`manifest` is base64 of the manifest's canonical bytes; its files must have been uploaded."""

    manifest: Annotated[Base64Bytes, Field(max_length=protocol.JSON_LIMIT)]
    options: PushOptions = PushOptions()


class StateChangeRequest(StateChange, extra="forbid"):
    """The new state, the reason, and the version to use instead."""


class BaseBindingRequest(BaseModel, extra="forbid"):
    """The id of the registered base that the version was trained on."""

    base: Digest


@ROUTES.post("", responses={201: {"model": PushResult}})
def push_version(
    name: Name, body: PushRequest, response: Response, registry: IdempotentRegistry
) -> PushResult:
    """Push a version whose files have been uploaded.

    The answer is 201 for a new version, and 200 if the adapter has this revision already.
    """
    pushed = registry.versions.put(name, body.manifest, body.options)
    response.status_code = 201 if pushed.is_new else 200
    return pushed


@ROUTES.get("/{revision}/manifest", response_model=Manifest)
def get_manifest(name: Name, revision: Revision, registry: CallersRegistry) -> Response:
    """Get a revision's manifest, byte for byte.

    The SHA-256 of these bytes is the revision's digest.
    """
    tree = registry.commits.tree(name, revision)
    headers = {"ETag": f'"{revision.hex}"', "Cache-Control": FOREVER}
    return Response(tree.to_bytes(), headers=headers, media_type="application/json")


@ROUTES.put("/{revision}/base")
def bind_version_base(
    name: Name, revision: Revision, body: BaseBindingRequest, registry: CallersRegistry
) -> VersionInfo:
    """Bind a version to the registered base that it was trained on.

    This is for versions that declare their base by a name or path only. They become servable if they fit it.
    """
    return registry.versions.bind_base(name, revision, body.base).version


@ROUTES.put("/{revision}/state")
def set_version_state(
    response: Response,
    name: Name,
    revision: Revision,
    body: StateChangeRequest,
    was: SeenGeneration,
    registry: CallersRegistry,
) -> VersionInfo:
    """Deprecate, revoke or reactivate a version.

    `If-Match: "<generation>"` is required: the generation of the version's `standing`, or `"0"` for a version
    without one.
    """
    change = StateChange(state=body.state, reason=body.reason, successor=body.successor)
    version = registry.versions.set_state(name, revision, change, was)
    response.headers["ETag"] = f'"{version.state_generation}"'
    return version
