"""Revisions, pushed as the exact bytes of a manifest, whose digest identifies the revision; and the states of
versions.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, cast

from anyio import to_thread
from fastapi import Request, Response
from pydantic import Base64Bytes, BaseModel, Field, ValidationError
from starlette.datastructures import MutableHeaders

from adaptry.adapters.inspection.inspector import InspectorBusy
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.identity import Identity
from adaptry.core.manifest import MAX_FILES, Manifest
from adaptry.core.refs import AdapterName
from adaptry.registry import protocol
from adaptry.registry.records import PushOptions, PushResult, StateChange, VersionInfo
from adaptry.registry.versions import MAX_SENT
from adaptry.storage.local.versions import LocalVersions
from adaptry_api.auth_policy import (
    Caller,
    CallersRegistry,
    app_state_of,
    guarded_router,
    with_quick_answer,
)
from adaptry_api.bodies import read_bytes, read_json
from adaptry_api.downloads import FOREVER
from adaptry_api.etags import SeenGeneration
from adaptry_api.faults import first_fault
from adaptry_api.idempotency import IdempotentRegistry, Key, key_of, registry_once
from adaptry_api.routes.parameters import Name, Revision

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/revisions", "revisions")


_HEAD = strictjson.JsonLimits(size=protocol.JSON_LIMIT)
_MAX_BODY = MAX_SENT + protocol.JSON_LIMIT + 4 * (MAX_FILES + 1)
_SMALL_BODY = 256 << 10
"""Largest body, in bytes, of a push that may be carried out in a batch with others. Such a push takes a few
milliseconds, unless it moves an alias, which may evaluate policies.
"""
_PARTS = {
    "requestBody": {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "required": True,
    }
}


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

    The response is 201 for a new version, and 200 if the adapter has this revision already.
    """
    pushed = registry.versions.put(name, body.manifest, body.options)
    response.status_code = 201 if pushed.is_new else 200
    return pushed


async def _quick_push(request: Request, identity: Identity) -> Response:
    given = request.path_params
    name = AdapterName.parse(f"{given['namespace']}/{given['name']}")
    return await _push_with_files(request, name, identity, key_of(request))


@ROUTES.post(
    "/with-files", response_model=PushResult, responses={201: {"model": PushResult}}, openapi_extra=_PARTS
)
@with_quick_answer(_quick_push)
async def push_version_with_files(
    request: Request, name: Name, identity: Caller, key: Key = None
) -> Response:
    """Push a version of at most 8 MiB together with its files, in one request.

    The body has several parts, each after its length in four bytes (big-endian): the JSON document that `POST
    /adapters/{namespace}/{name}/revisions` takes, then the bytes of each file, in the manifest's order.
    Nothing is stored unless the version is admitted. The request may be repeated: the response is 201 for a
    new version, and 200 if the adapter has this revision already.
    """
    return await _push_with_files(request, name, identity, key)


async def _push_with_files(
    request: Request, name: AdapterName, identity: Identity, key: str | None
) -> Response:
    state = app_state_of(request)
    async with state.uploads.slot(identity.namespaces) as threads:
        body = await read_bytes(request, _MAX_BODY)
        head, *files = protocol.split_parts(body, MAX_FILES + 1) or [b""]
        document = await read_json(head, _HEAD, state.parse_slots, _push_request)
        headers, manifest, options = MutableHeaders(), document.manifest, document.options

        def put() -> PushResult:
            registry = registry_once(request, headers, identity, key, body)
            return registry.versions.put_with_files(name, manifest, options, files)

        pushed: PushResult | None = None
        if state.has_short_pushes and len(body) <= _SMALL_BODY and options.alias is None:
            versions = cast(LocalVersions, registry_once(request, headers, identity, key, body).versions)
            with suppress(InspectorBusy):
                pushed = await state.short_pushes.run(versions.pending_push(name, manifest, options, files))
        if pushed is None:
            pushed = await to_thread.run_sync(put, limiter=threads)
    status = 201 if pushed.is_new else 200
    return Response(pushed.model_dump_json(), status, headers, media_type="application/json")


def _push_request(document: object) -> PushRequest:
    """The push in a request's body. Raises `Invalid`."""
    try:
        return PushRequest.model_validate(document)
    except ValidationError as error:
        raise Invalid(f"the first part of the body: {first_fault(error)}") from None


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

    This is for versions that declare their base only by a name or path. They become servable if they fit the
    base.
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

    `If-Match: "<generation>"` is required: the generation of the version's `last_state_change`, or `"0"` for
    a version without one.
    """
    change = StateChange(state=body.state, reason=body.reason, successor=body.successor)
    version = registry.versions.set_state(name, revision, change, was)
    response.headers["ETag"] = f'"{version.state_generation}"'
    return version
