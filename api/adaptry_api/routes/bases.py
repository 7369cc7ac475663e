"""Bases: what adapters were trained on, by content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Query, Request, Response
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from adaptry.adapters.base_record import BaseRecord, Sketch, TensorShape
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, NotFound
from adaptry.core.identity import require_base_write
from adaptry.core.manifest import FileEntry
from adaptry.core.processes.json_check import loads_in_child
from adaptry.registry import protocol
from adaptry.registry.records import BaseEdit, BaseInfo, Page
from adaptry_api.auth_policy import Caller, CallersRegistry, app_state_of, guarded_router
from adaptry_api.bodies import first_fault, read_body
from adaptry_api.downloads import file_response
from adaptry_api.etags import etag_response
from adaptry_api.redirects import redirect_to_bucket
from adaptry_api.routes.parameters import BaseId, Blob, Cursor, Limit

ROUTES = guarded_router(f"{protocol.PREFIX}/bases", "bases")
_MAX_VALUES = 4_000_000
_BYTES_OF_A_VALUE = 6  # at least, on average: the shortest tensor of a record takes 37 bytes for four values


class NewBase(BaseModel, extra="forbid"):
    """A base's record as `adaptry base add` makes it, and the names it goes by."""

    record: BaseRecord
    names: tuple[Annotated[str, Field(min_length=1, max_length=512)], ...] = Field(default=(), max_length=64)


class BaseFilesRequest(BaseModel, extra="forbid"):
    """The uploaded files that are a base's weights."""

    files: tuple[FileEntry, ...] = Field(min_length=1, max_length=4096)


_TABLES: dict[str, TypeAdapter[Any]] = {
    "tensors": TypeAdapter(TensorShape),
    "sketches": TypeAdapter(Sketch),
    "file_hashes": TypeAdapter(Digest),
}
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
        body = _new_base(loads_in_child(data, limits, "the request"))
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


def _new_base(document: Any) -> NewBase:
    """The body of a request, its tables validated entry by entry: other threads are served meanwhile, and the
    first fault is the last that costs anything. (`Any`: JSON.) Raises `Invalid`.
    """
    where = ""
    try:
        if isinstance(document, dict) and isinstance(record := document.get("record"), dict):
            for table, kind in _TABLES.items():
                if isinstance(entries := record.get(table), dict):
                    for name, value in entries.items():
                        where = f"record.{table}.{name}."
                        entries[name] = kind.validate_python(value)
        where = ""
        return NewBase.model_validate(document)
    except ValidationError as error:
        raise Invalid(f"not a base's record: {where[:200]}{first_fault(error)}") from None
