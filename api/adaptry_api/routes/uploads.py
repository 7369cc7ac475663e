"""Uploads: resumable sessions. Open one, append bytes at an offset, finish it.

A lost answer does no harm: opening the upload again returns the session with its received bytes, and
finishing twice has no further effect.
"""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import Header, Path, Query, Request
from pydantic import BaseModel, Field

from adaptry.core.digest import Digest
from adaptry.core.errors import TooLarge
from adaptry.core.manifest import MAX_FILES
from adaptry.registry import protocol
from adaptry.registry.files import Owner
from adaptry.registry.records import Page, UploadInfo, UploadSession
from adaptry.registry.uploads import Uploads
from adaptry.registry.versions import MAX_SENT
from adaptry_api.auth_policy import Caller, CallersRegistry, app_state_of, guarded_router
from adaptry_api.bodies import read_bytes, stream_body
from adaptry_api.routes.parameters import BaseId, Blob, Cursor, Limit, Name

ROUTES = guarded_router(protocol.PREFIX, "uploads")
OF_ADAPTER = "/adapters/{namespace}/{name}"
OF_BASE = "/bases/{base}"

Id = Annotated[str, Path(max_length=512)]
_BYTES = {
    "requestBody": {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "required": True,
    }
}


class UploadOpenRequest(BaseModel, extra="forbid"):
    """The file to upload.

    Without a `digest`, the file may be sent while it is hashed. Then finish the upload with the digest; or
    open it again, with the digest and the id of the `earlier` upload.
    """

    digest: Digest | None = None
    size: int = Field(ge=0)
    earlier: str | None = Field(None, max_length=512)


class UploadFinishRequest(BaseModel, extra="forbid"):
    """The size that the caller expects; and the digest, if the upload was opened without one."""

    offset: int = Field(ge=0)
    size: int = Field(ge=0)
    digest: Digest | None = None


class BlobPresence(BaseModel):
    """Whether this adapter or base has the bytes; the response does not reveal whether another one has
    them.
    """

    is_here: bool


@ROUTES.get(f"{OF_ADAPTER}/blobs/{{digest}}")
def has_adapter_blob(name: Name, digest: Blob, registry: CallersRegistry) -> BlobPresence:
    """Check whether an adapter already has a file with this digest.

    If it has, the file need not be uploaded again.
    """
    return BlobPresence(is_here=registry.files.has(name, digest))


@ROUTES.get(f"{OF_BASE}/blobs/{{digest}}")
def has_base_blob(base: BaseId, digest: Blob, registry: CallersRegistry) -> BlobPresence:
    """Check whether a base already has a file with this digest."""
    return BlobPresence(is_here=registry.files.has(base, digest))


@ROUTES.post(f"{OF_ADAPTER}/blobs", status_code=204, openapi_extra=_BYTES)
async def store_small_adapter_files(
    request: Request, name: Name, identity: Caller, registry: CallersRegistry
) -> None:
    """Store several small files of an adapter in one request.

    At most 32 files, and 8 MiB in total. The body is the bytes of each file, after their length in four bytes
    (big-endian). The request may be repeated.
    """
    async with app_state_of(request).uploads.slot(identity.namespaces) as threads:
        body = await read_bytes(request, MAX_SENT + 4 * MAX_FILES)
        contents = protocol.split_parts(body, MAX_FILES)
        if sum(map(len, contents)) > MAX_SENT:
            raise TooLarge(f"the files have more than {MAX_SENT >> 20} MiB together; upload them one by one")
        await to_thread.run_sync(registry.uploads.put_all, name, contents, limiter=threads)


@ROUTES.post(f"{OF_ADAPTER}/uploads")
def open_adapter_upload(name: Name, body: UploadOpenRequest, registry: CallersRegistry) -> UploadInfo:
    """Open an upload of a file for an adapter.

    Send the bytes to `PATCH /uploads/{id}`, then call `POST /uploads/{id}/finish`. Opening the same upload
    again returns it with the bytes it has, so an interrupted client can continue.

    An upload without a digest is refused (409) if the adapter has a file of that size, or an open upload of
    one, because the digest may save sending it; and if the files are in a bucket.
    """
    return _open(registry.uploads, name, body)


@ROUTES.post(f"{OF_BASE}/uploads")
def open_base_upload(base: BaseId, body: UploadOpenRequest, registry: CallersRegistry) -> UploadInfo:
    """Open an upload of a file for a base.

    The next steps are the same as for an adapter.
    """
    return _open(registry.uploads, base, body)


@ROUTES.get("/uploads")
def list_uploads(
    registry: CallersRegistry,
    namespace: Annotated[
        str | None, Query(max_length=96, description="Only uploads to this namespace.")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[UploadSession]:
    """List the open uploads that the caller may discard."""
    return registry.uploads.list(namespace, cursor, limit)


@ROUTES.delete("/uploads/{id}", status_code=204)
def discard_upload(id: Id, registry: CallersRegistry) -> None:
    """Discard an open upload and its bytes."""
    registry.uploads.drop(id)


@ROUTES.patch("/uploads/{id}", openapi_extra=_BYTES)
async def append_to_upload(
    request: Request,
    id: Id,
    identity: Caller,
    registry: CallersRegistry,
    offset: Annotated[int, Header(alias=protocol.OFFSET_HEADER, ge=0)],
    size: Annotated[int, Header(alias=protocol.SIZE_HEADER, ge=0)],
) -> UploadInfo:
    """Append bytes to an upload.

    The body's first byte belongs at `Upload-Offset`. If the connection breaks, the bytes before the break are
    kept. For a wrong offset, the response is 416, with the right one in the problem's `offset`.
    """
    upload = UploadInfo(id=id, offset=offset, size=size)
    async with app_state_of(request).uploads.slot(identity.namespaces) as threads:
        return await stream_body(
            request, lambda chunks: registry.uploads.append(upload, offset, chunks), threads
        )


@ROUTES.post("/uploads/{id}/finish", status_code=204)
def finish_upload(id: Id, body: UploadFinishRequest, registry: CallersRegistry) -> None:
    """Finish an upload.

    The server checks the bytes against the digest, which is given now or was given when the upload was
    opened. Finishing twice has no further effect.
    """
    registry.uploads.finish(UploadInfo(id=id, offset=body.offset, size=body.size), body.digest)


def _open(uploads: Uploads, owner: Owner, body: UploadOpenRequest) -> UploadInfo:
    return uploads.open(owner, body.digest, body.size, body.earlier)
