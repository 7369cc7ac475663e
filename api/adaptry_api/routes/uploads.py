"""Uploads: sessions that take up where they were cut. Open, append at an offset, finish.

An answer that was lost is no harm: opening again gives the session back with what it kept, and finishing
twice is finishing once.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Path, Query, Request
from pydantic import BaseModel, Field

from adaptry.core.digest import Digest
from adaptry.registry import protocol
from adaptry.registry.files import Owner
from adaptry.registry.records import Page, UploadInfo, UploadSession
from adaptry.registry.uploads import Uploads
from adaptry_api.auth_policy import Caller, CallersRegistry, app_state_of, guarded_router
from adaptry_api.bodies import stream_body
from adaptry_api.routes.parameters import BaseId, Blob, Cursor, Limit, Name

ROUTES = guarded_router(protocol.PREFIX, "uploads")
OF_ADAPTER = "/adapters/{namespace}/{name}"
OF_BASE = "/bases/{base}"

Id = Annotated[str, Path(max_length=512)]
_BYTES = {"requestBody": {"content": {"application/octet-stream": {}}, "required": True}}


class UploadOpenRequest(BaseModel, extra="forbid"):
    """The file to come."""

    digest: Digest
    size: int = Field(ge=0)


class UploadFinishRequest(BaseModel, extra="forbid"):
    """What the caller believes was sent."""

    offset: int = Field(ge=0)
    size: int = Field(ge=0)


class BlobPresence(BaseModel):
    """Whether the given owner has the bytes; nothing reveals whether another owner has them."""

    is_here: bool


@ROUTES.get(f"{OF_ADAPTER}/blobs/{{digest}}")
def adapter_has(name: Name, digest: Blob, registry: CallersRegistry) -> BlobPresence:
    return BlobPresence(is_here=registry.files.has(name, digest))


@ROUTES.get(f"{OF_BASE}/blobs/{{digest}}")
def base_has(base: BaseId, digest: Blob, registry: CallersRegistry) -> BlobPresence:
    return BlobPresence(is_here=registry.files.has(base, digest))


@ROUTES.post(f"{OF_ADAPTER}/uploads")
def open_for_adapter(name: Name, body: UploadOpenRequest, registry: CallersRegistry) -> UploadInfo:
    return _open(registry.uploads, name, body)


@ROUTES.post(f"{OF_BASE}/uploads")
def open_for_base(base: BaseId, body: UploadOpenRequest, registry: CallersRegistry) -> UploadInfo:
    return _open(registry.uploads, base, body)


@ROUTES.get("/uploads")
def list_open(
    registry: CallersRegistry,
    namespace: Annotated[str | None, Query(max_length=96)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[UploadSession]:
    """Open sessions that the caller may drop."""
    return registry.uploads.list(namespace, cursor, limit)


@ROUTES.delete("/uploads/{id}", status_code=204)
def drop(id: Id, registry: CallersRegistry) -> None:
    """Ends a session and discards its bytes."""
    registry.uploads.drop(id)


@ROUTES.patch("/uploads/{id}", openapi_extra=_BYTES)
async def append(
    request: Request,
    id: Id,
    identity: Caller,
    registry: CallersRegistry,
    offset: Annotated[int, Header(alias=protocol.OFFSET_HEADER, ge=0)],
    size: Annotated[int, Header(alias=protocol.SIZE_HEADER, ge=0)],
) -> UploadInfo:
    """Adds the body's bytes at `Upload-Offset`; what precedes a cut is kept. 416 gives the right offset."""
    upload = UploadInfo(id=id, offset=offset, size=size)
    async with app_state_of(request).uploads.slot(identity.namespaces) as threads:
        return await stream_body(
            request, lambda chunks: registry.uploads.append(upload, offset, chunks), threads
        )


@ROUTES.post("/uploads/{id}/finish", status_code=204)
def finish(id: Id, body: UploadFinishRequest, registry: CallersRegistry) -> None:
    """Verifies the bytes against the digest they were announced under, and publishes them."""
    registry.uploads.finish(UploadInfo(id=id, offset=body.offset, size=body.size))


def _open(uploads: Uploads, owner: Owner, body: UploadOpenRequest) -> UploadInfo:
    return uploads.open(owner, body.digest, body.size)
