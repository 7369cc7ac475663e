"""Bases: what adapters were trained on, by content."""

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
from adaptry.registry.records import BaseEdit, BaseInfo, Page
from adaptry_api.auth_policy import Caller, CallersRegistry, app_state_of, guarded_router
from adaptry_api.base_document import read_new_base
from adaptry_api.bodies import read_body
from adaptry_api.downloads import file_response
from adaptry_api.etags import etag_response
from adaptry_api.redirects import redirect_to_bucket
from adaptry_api.routes.parameters import BaseId, Blob, Cursor, Limit

ROUTES = guarded_router(f"{protocol.PREFIX}/bases", "bases")
_MAX_VALUES = 4_000_000
_BYTES_OF_A_VALUE = 6  # at least, on average: the shortest tensor of a record takes 37 bytes for four values


class BaseFilesRequest(BaseModel, extra="forbid"):
    """The uploaded files that are a base's weights."""

    files: tuple[FileEntry, ...] = Field(min_length=1, max_length=4096)


_BODY = {
    "requestBody": {
        "content": {"application/json": {"schema": {"type": "object", "required": ["record"]}}},
        "required": True,
    }
}


@ROUTES.post("", openapi_extra=_BODY)
async def put(request: Request, identity: Caller, registry: CallersRegistry) -> BaseInfo:
    """A known base gains names and evidence. The record may be larger than other requests: up to 64 MiB."""
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
def list_all(registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50) -> Page[BaseInfo]:
    return registry.bases.list(cursor, limit)


@ROUTES.get("/find", response_model=BaseInfo)
def find(request: Request, registry: CallersRegistry, key: Annotated[str, Query(max_length=512)]) -> Response:
    """By name, id, or the beginning of an id."""
    return etag_response(request, registry.bases.get(key))


@ROUTES.get("/like/{digest}")
def like(digest: Blob, registry: CallersRegistry) -> tuple[BaseInfo, ...]:
    """The bases of one architecture."""
    return registry.bases.of_architecture(digest)


@ROUTES.get("/{base}/record", response_model=BaseRecord)
def record(request: Request, base: BaseId, registry: CallersRegistry) -> Response:
    return etag_response(request, registry.bases.record(base))


@ROUTES.patch("/{base}")
def edit(base: BaseId, body: BaseEdit, registry: CallersRegistry) -> BaseInfo:
    """Who may see the base: `private`, `internal` or `public`."""
    return registry.bases.edit(base, body)


@ROUTES.put("/{base}/files")
def store(base: BaseId, body: BaseFilesRequest, registry: CallersRegistry) -> BaseInfo:
    return registry.bases.store(base, body.files)


@ROUTES.get("/{base}/files/{path:path}", response_class=Response)
async def read(request: Request, base: BaseId, path: str, registry: CallersRegistry) -> Response:
    """A file of a stored base, or one `Range` of it."""

    def find_file() -> FileEntry:
        for entry in registry.bases.get(str(base)).stored:
            if entry.path == path:
                return entry
        raise NotFound(f"the base {base.brief} has no stored file of that name")

    def read_on(start: int) -> Iterator[bytes]:
        return registry.bases.read_file(base, path, start)

    entry = await to_thread.run_sync(find_file)
    elsewhere = await redirect_to_bucket(request, entry.sha256, path, entry.size, read_on)
    return elsewhere or await file_response(request, entry, read_on, app_state_of(request).downloads)
