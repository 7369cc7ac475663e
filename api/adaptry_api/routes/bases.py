"""Bases: the models that adapters were trained on, identified by content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from anyio import to_thread
from fastapi import Query, Request, Response
from pydantic import BaseModel, Field

from adaptry.adapters.base_record import BaseRecord
from adaptry.core import strictjson
from adaptry.core.errors import NotFound
from adaptry.core.identity import require_base_write
from adaptry.core.manifest import FileEntry
from adaptry.registry import protocol
from adaptry.registry.base_info import BaseEdit, BaseInfo
from adaptry.registry.bases import MAX_KEY
from adaptry.registry.records import Page
from adaptry_api import downloads
from adaptry_api.auth_policy import Caller, CallersRegistry, app_state_of, guarded_router
from adaptry_api.base_document import read_new_base
from adaptry_api.bodies import read_body
from adaptry_api.downloads import file_response
from adaptry_api.etags import etag_response
from adaptry_api.redirects import redirect_to_bucket
from adaptry_api.route_threads import run_in_own_threads
from adaptry_api.routes.parameters import Architecture, BaseId, Cursor, Limit

ROUTES = guarded_router(f"{protocol.PREFIX}/bases", "bases")
_MAX_VALUES = 4_000_000
_BYTES_OF_A_VALUE = 6  # minimum on average: the shortest tensor of a record takes 37 bytes for four values


class BaseFilesRequest(BaseModel, extra="forbid"):
    """The uploaded files that are a base's weights."""

    files: tuple[FileEntry, ...] = Field(min_length=1, max_length=4096)


_BODY = {
    "requestBody": {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewBase"}}},
        "required": True,
    }
}


@ROUTES.post("", openapi_extra=_BODY)
async def register_base(request: Request, identity: Caller, registry: CallersRegistry) -> BaseInfo:
    """Register a base model, or add names and evidence to one that is registered.

    The record holds the fingerprints that `adaptry base add` computes; the weights are not needed. The body
    may be up to 64 MiB.
    """
    require_base_write(identity)  # before a body of that size is read
    data = await read_body(request, protocol.BASE_LIMIT)

    def register() -> BaseInfo:
        limits = strictjson.JsonLimits(
            protocol.BASE_LIMIT, nodes=min(_MAX_VALUES, 1000 + len(data) // _BYTES_OF_A_VALUE)
        )
        body = read_new_base(data, limits)
        return registry.bases.put(body.record, body.names)

    return await to_thread.run_sync(register, limiter=app_state_of(request).parse_slots.bases)


@ROUTES.get("")
def list_bases(registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50) -> Page[BaseInfo]:
    """List the base models that the caller may see, newest first."""
    return registry.bases.list(cursor, limit)


@ROUTES.get("/find", response_model=BaseInfo)
def find_base(
    request: Request, registry: CallersRegistry, key: Annotated[str, Query(max_length=MAX_KEY)]
) -> Response:
    """Find a base model by its name, its id, or the first characters of the id."""
    return etag_response(request, registry.bases.get(key))


@ROUTES.get("/like/{digest}")
def list_bases_of_architecture(digest: Architecture, registry: CallersRegistry) -> tuple[BaseInfo, ...]:
    """List the base models that share an architecture.

    They have tensors of the same names and shapes.
    """
    return registry.bases.of_architecture(digest)


@ROUTES.get("/{base}/record", response_model=BaseRecord)
def get_base_record(request: Request, base: BaseId, registry: CallersRegistry) -> Response:
    """Get a base model's full record: its fingerprints, tensors and tokenizer."""
    return etag_response(request, registry.bases.record(base))


@ROUTES.patch("/{base}")
def edit_base(base: BaseId, body: BaseEdit, registry: CallersRegistry) -> BaseInfo:
    """Change who may see a base model; administrators only."""
    return registry.bases.edit(base, body)


@ROUTES.put("/{base}/files")
def store_base_files(base: BaseId, body: BaseFilesRequest, registry: CallersRegistry) -> BaseInfo:
    """Store uploaded files as the weights of a base model.

    The files must have been uploaded for this base.
    """
    return registry.bases.store(base, body.files)


@ROUTES.get("/{base}/files/{path:path}", response_class=Response, responses=downloads.RESPONSES)
async def download_base_file(
    request: Request, base: BaseId, path: str, registry: CallersRegistry
) -> Response:
    """Download a file of a stored base model, or one range of its bytes.

    The response may redirect to the bucket that holds the file.
    """

    def find_file() -> FileEntry:
        for entry in registry.bases.get(str(base)).stored:
            if entry.path == path:
                return entry
        raise NotFound(f"the base {base.brief} has no stored file of that name")

    def read_on(start: int) -> Iterator[bytes]:
        return registry.bases.read_file(base, path, start)

    entry = await run_in_own_threads("reads", find_file)
    elsewhere = await redirect_to_bucket(request, entry.sha256, path, entry.size, read_on)
    return elsewhere or await file_response(request, entry, read_on, app_state_of(request).downloads)
