"""Uploads through Xet, the only way that the Hub's newer clients know for large files: taken apart here, kept as
plain files by their SHA-256.

Every token comes with an address of its own (`casUrl`), and what is uploaded there is seen nowhere else: a client
assumes that chunks it has sent to an address once are there for ever, and nobody may refer to another's. What the
adapter's own files have, clients need not send: they ask for a chunk, and are told of the file that has it. Reading never
goes through Xet. One more address that clients try, for another way to send xorbs, is not there, and the 404 makes them
go on with these. Nor is that of their statistics.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import Depends, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, DigestMismatch, NotFound, PermissionDenied, Unavailable
from adaptry.core.refs import AdapterName
from adaptry_api.app_state import AppState
from adaptry_api.auth_policy import Caller, CallersRegistry, GrantContext, RequireGrant, app_state_of
from adaptry_api.bodies import stream_body
from adaptry_api.grants import Grant
from adaptry_api.hub.addresses import MODELS, Name, origin, url_path_of
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.upload_spool import UploadSpool
from adaptry_api.hub.uploads import content_length, require_length, require_writer, store_file, token_hash
from adaptry_api.hub.xet import shard, xorb
from adaptry_api.hub.xet.dedup_shard import SHARD_MEDIA_TYPE as SHARD_KIND
from adaptry_api.hub.xet.dedup_shard import dedup_shard
from adaptry_api.hub.xet.hashes import check_hash
from adaptry_api.hub.xet.reassembly import JoinedFile, resolve_files, stored_runs
from adaptry_api.hub.xet.shard import XetFile
from adaptry_api.hub.xet.stored_xorb import StoredXorb, xorb_trailer, xorb_with_trailer
from adaptry_api.upload_slots import Holder

ROUTES = hub_router()
TOKEN_SECONDS = 3600
_ACCESS_TOKEN, _EXPIRATION, _CAS_URL = "X-Xet-Access-Token", "X-Xet-Token-Expiration", "X-Xet-Cas-Url"
_UPLOAD = "/xet/{upload}"
_FRAMES = "application/x-ndjson"


class XetGrant(Grant):
    """To send xorbs and shards to the addresses that were given for one adapter with one token."""


XetWriter = Annotated[GrantContext[XetGrant], Depends(RequireGrant(XetGrant))]


async def _upload(request: Request, upload: str, writer: XetWriter) -> str:
    """The upload's id. Raises `PermissionDenied` where the address was given for another adapter or to somebody else."""
    if not hmac.compare_digest(_id(request, upload[:32], writer.grant).encode(), upload.encode()):
        raise PermissionDenied("this address is of another upload; start again")
    return upload


XetUploadId = Annotated[str, Depends(_upload)]


@ROUTES.get(f"{MODELS}/xet-write-token/{{revision:path}}")
def write_token(
    request: Request,
    name: Name,
    identity: Caller,
    registry: CallersRegistry,
    upload: Annotated[str, Query(pattern="^[0-9a-f]{32}$")] = "",
) -> Response:
    """A token and an address for one upload, a new one or that of the number `upload`. Asked again, the token is good for
    the addresses given before too."""
    require_writer(registry, identity, name)
    headers = _write_headers(request, name, upload or secrets.token_hex(16))
    said = {
        "accessToken": headers[_ACCESS_TOKEN],
        "exp": int(headers[_EXPIRATION]),
        "casUrl": headers[_CAS_URL],
    }
    return JSONResponse(said, headers=headers)


def xet_action(request: Request, name: AdapterName) -> dict[str, object]:
    """How a Git LFS batch leads to Xet: a token and an address in `header`, and in `href` where to get a newer token for
    the same address. That the caller may write is for the caller of this to see."""
    number = secrets.token_hex(16)
    again = f"{origin(request)}/api/models/{url_path_of(str(name))}/xet-write-token/main?upload={number}"
    return {"href": again, "header": _write_headers(request, name, number)}


def _write_headers(request: Request, name: AdapterName, number: str) -> dict[str, str]:
    grant = XetGrant(name=name, by=token_hash(request), until=int(time.time()) + TOKEN_SECONDS)
    return {
        _ACCESS_TOKEN: app_state_of(request).signer.sign(grant),
        _EXPIRATION: str(grant.until),
        _CAS_URL: f"{origin(request)}/xet/{_id(request, number, grant)}",
    }


@ROUTES.post(f"{_UPLOAD}/v1/xorbs/default/{{hash}}")
async def put_xorb(request: Request, upload: XetUploadId, writer: XetWriter, hash: str) -> Response:
    """Unpacks the body as it comes, and keeps the chunks for the shards to follow."""
    store, name = app_state_of(request), check_hash(hash)
    size = content_length(request, xorb.MAX_BODY_BYTES)

    def keep(pieces: Iterator[bytes]) -> None:
        with store.spools.open(writer.grant.name.namespace, upload) as spool:
            spool.write(name, xorb_with_trailer(xorb.unpack_chunks(require_length(pieces, size))))

    async with store.uploads.slot(_holder(writer)) as threads:
        await stream_body(request, keep, threads, kind=None)
    return JSONResponse({"was_inserted": True})


@ROUTES.get(f"{_UPLOAD}/v1/chunks/{{kind}}/{{hash}}")
def known_chunk(request: Request, upload: XetUploadId, writer: XetWriter, kind: str, hash: str) -> Response:
    """Which chunks the adapter's own files have, if one of them begins with this chunk, or has it where clients ask.
    Raises `NotFound` where none has, whatever other adapters have."""
    store, name = app_state_of(request), writer.grant.name
    file = store.chunk_maps.find_file_with_chunk(name, check_hash(hash))
    if file is None or not writer.registry.has_file(name, file):
        raise NotFound(f"no file of {name} is known to have this chunk; send it")
    now = int(time.time())
    return Response(
        dedup_shard(store.chunk_maps.iter_xorbs(name, file), now, now + TOKEN_SECONDS), media_type=SHARD_KIND
    )


@ROUTES.post(f"{_UPLOAD}/v1/shards")
@ROUTES.post(f"{_UPLOAD}/shards")
async def put_shard(request: Request, upload: XetUploadId, writer: XetWriter) -> Response:
    """Joins the files that the shard describes, and answers when all are kept."""
    files = await _described(request, upload, writer)
    store = app_state_of(request)
    async with store.uploads.slot(_holder(writer)) as threads:
        await to_thread.run_sync(lambda: list(_join_all(store, upload, writer, files)), limiter=threads)
    return JSONResponse({"result": 1})


@ROUTES.post(f"{_UPLOAD}/v2/shards")
async def put_shard_with_progress(request: Request, upload: XetUploadId, writer: XetWriter) -> Response:
    """As `put_shard`, telling of each file; and of a refusal in the one form that clients show to people."""
    try:
        files = await _described(request, upload, writer)
    except AdaptryError as error:
        return Response(_failed(error), media_type=_FRAMES)
    store = app_state_of(request)
    joining = _join_all(store, upload, writer, files)
    return StreamingResponse(
        _told(joining, len(files), store.uploads.slot(_holder(writer))), media_type=_FRAMES
    )


async def _described(request: Request, upload: str, writer: XetWriter) -> tuple[XetFile, ...]:
    """The files of the shard that is the body."""
    store = app_state_of(request)
    size = content_length(request, shard.MAX_SHARD_BYTES)

    def read(pieces: Iterator[bytes]) -> tuple[XetFile, ...]:
        with store.spools.open(writer.grant.name.namespace, upload) as spool:
            name = f"shard-{secrets.token_hex(8)}"
            spool.write(name, require_length(pieces, size))
            try:
                with spool.piece_path(name).open("rb") as file:
                    return shard.parse_shard(file)
            finally:
                spool.piece_path(name).unlink()

    async with store.uploads.slot(_holder(writer)) as threads:
        return await stream_body(request, read, threads, kind=None)


def _join_all(
    store: AppState, upload: str, writer: GrantContext[XetGrant], files: tuple[XetFile, ...]
) -> Iterator[int]:
    """Gives the files to the adapter, counting them; then lets go of what they were made of."""
    name = writer.grant.name
    # One shard of an upload at a time: what one of them lets go of, another may be reading.
    with store.spools.open(name.namespace, upload) as spool, spool.exclusive():
        joined = resolve_files(files, _XorbFinder(store, writer, spool))
        for done, file in enumerate(joined, 1):
            _deliver(store, writer, file)
            yield done
        for hash, (spooled_xorb, runs) in stored_runs(joined).items():
            spool.write(hash, xorb_trailer(spooled_xorb.table, runs))
        spool.mark_finished()


def _deliver(store: AppState, writer: GrantContext[XetGrant], file: JoinedFile) -> None:
    name = writer.grant.name
    try:
        store_file(
            writer.registry,
            name,
            file.sha256,
            file.size,
            lambda start: file.read(start, store.blobs.chunks),
        )
    except DigestMismatch:
        # Should a map be wrong, or a stored file damaged, the client sends all of it when it tries again.
        for source in file.sources:
            store.chunk_maps.forget(name, source)
        raise
    store.chunk_maps.save(name, file.sha256, file.table)


class _XorbFinder:
    """Finds the xorb of a hash: one of this upload, or a part of a file that the adapter has."""

    def __init__(self, store: AppState, writer: GrantContext[XetGrant], spool: UploadSpool) -> None:
        self._maps = store.chunk_maps
        self._writer = writer
        self._spool = spool
        self._present: set[Digest] = set()

    def __call__(self, hash: str) -> StoredXorb:
        """Raises `NotFound`."""
        piece, name = self._spool.piece_path(hash), self._writer.grant.name
        found = StoredXorb.open(piece) if piece.exists() else self._maps.open_xorb(name, hash)
        for file in found.files - self._present:
            if not self._writer.registry.has_file(name, file):
                raise NotFound("no such xorb")
            self._present.add(file)
        return found


async def _told(
    joining: Iterator[int], total: int, slot: AbstractAsyncContextManager[anyio.CapacityLimiter]
) -> AsyncIterator[bytes]:
    """Frames, one a line: how far it is, then how it ended."""
    try:
        async with slot as threads:
            while (done := await to_thread.run_sync(next, joining, None, limiter=threads)) is not None:
                yield _frame(type="validating", verified=done, total=total)
        yield _frame(type="result")
    except AdaptryError as error:
        yield _failed(error)


def _holder(writer: GrantContext[XetGrant]) -> Holder:
    return (writer.grant.name.namespace,)


def _failed(error: AdaptryError) -> bytes:
    return _frame(type="error", message=error.message, retryable=isinstance(error, Unavailable))


def _frame(**said: object) -> bytes:
    return json.dumps(said).encode() + b"\n"


def _id(request: Request, number: str, grant: XetGrant) -> str:
    """An upload's id: a number, and the proof that it was given out for the grant's adapter and token."""
    return number + app_state_of(request).signer.mac_hex("xet", number, str(grant.name), grant.by)
