"""Uploads through Xet, the only way that the Hub's newer clients know for large files: taken apart here, kept as
plain files by their SHA-256.

Every token comes with an address of its own (`casUrl`), and what is uploaded there is seen nowhere else: a client
assumes that chunks it has sent to an address once are there for ever, and nobody may refer to another's. Reading
never goes through Xet. Two more addresses that clients try, for chunks that are known already and for another way
to send xorbs, are not there, and the 404 makes them go on with these. So is that of their statistics.
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
from fastapi import Depends, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from adaptry.errors import AdaptryError, Denied, Unavailable
from adaptry_api.bodies import pour
from adaptry_api.guard import Acting, Caller, CallersRegistry, GrantHolder, store_of
from adaptry_api.hub.addresses import MODELS, Name, origin
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.uploading import announced, deliver, entire, require_writer, token_hash
from adaptry_api.hub.xet import shard, xorb
from adaptry_api.hub.xet.hashes import check_hash
from adaptry_api.hub.xet.joining import Joined, join
from adaptry_api.signed import Grant
from adaptry_api.upload_slots import Holder

ROUTES = hub_router()
TOKEN_SECONDS = 3600
_UPLOAD = "/xet/{upload}"
_FRAMES = "application/x-ndjson"


class XetGrant(Grant):
    """To send xorbs and shards to the addresses that were given for one adapter with one token."""


Writer = Annotated[Acting[XetGrant], Depends(GrantHolder(XetGrant))]


async def _upload(request: Request, upload: str, writer: Writer) -> str:
    """The upload's id. Raises `Denied` where the address was given for another adapter or to somebody else."""
    if not hmac.compare_digest(_id(request, upload[:32], writer.grant).encode(), upload.encode()):
        raise Denied("this address is of another upload; start again")
    return upload


Upload = Annotated[str, Depends(_upload)]


@ROUTES.get(f"{MODELS}/xet-write-token/{{revision:path}}")
def write_token(request: Request, name: Name, identity: Caller, registry: CallersRegistry) -> Response:
    """A token and an address for one upload. Asked again, the token is good for the addresses given before too."""
    require_writer(registry, identity, name)
    grant = XetGrant(name=name, by=token_hash(request), until=int(time.time()) + TOKEN_SECONDS)
    token = store_of(request).signer.sign(grant)
    address = f"{origin(request)}/xet/{_id(request, secrets.token_hex(16), grant)}"
    headers = {
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(grant.until),
        "X-Xet-Cas-Url": address,
    }
    return JSONResponse({"accessToken": token, "exp": grant.until, "casUrl": address}, headers=headers)


@ROUTES.post(f"{_UPLOAD}/v1/xorbs/default/{{hash}}")
async def put_xorb(request: Request, upload: Upload, writer: Writer, hash: str) -> Response:
    """Unpacks the body as it comes, and keeps the chunks for the shards to follow."""
    store, name = store_of(request), check_hash(hash)
    size = announced(request, xorb.LARGEST_BODY)

    def keep(pieces: Iterator[bytes]) -> None:
        with store.spools.open(writer.grant.name.namespace, upload) as spool:
            spool.write(name, xorb.table_after(xorb.unpacked(entire(pieces, size))))

    async with store.uploads.slot(_holder(writer)) as threads:
        await pour(request, keep, threads, kind=None)
    return JSONResponse({"was_inserted": True})


@ROUTES.post(f"{_UPLOAD}/v1/shards")
@ROUTES.post(f"{_UPLOAD}/shards")
async def put_shard(request: Request, upload: Upload, writer: Writer) -> Response:
    """Joins the files that the shard describes, and answers when all are kept."""
    store = store_of(request)
    files = await _described(request, upload, writer)
    async with store.uploads.slot(_holder(writer)) as threads:
        await to_thread.run_sync(lambda: list(_join_all(request, upload, writer, files)), limiter=threads)
    return JSONResponse({"result": 1})


@ROUTES.post(f"{_UPLOAD}/v2/shards")
async def put_shard_telling(request: Request, upload: Upload, writer: Writer) -> Response:
    """As `put_shard`, telling of each file; and of a refusal in the one form that clients show to people."""
    try:
        files = await _described(request, upload, writer)
    except AdaptryError as error:
        return Response(_failed(error), media_type=_FRAMES)
    joining = _join_all(request, upload, writer, files)
    slot = store_of(request).uploads.slot(_holder(writer))
    return StreamingResponse(_told(joining, len(files), slot), media_type=_FRAMES)


async def _described(request: Request, upload: str, writer: Writer) -> tuple[Joined, ...]:
    """The files of the shard that is the body, each found to fit what was uploaded."""
    store = store_of(request)
    size = announced(request, shard.LARGEST)

    def read(pieces: Iterator[bytes]) -> tuple[Joined, ...]:
        with store.spools.open(writer.grant.name.namespace, upload) as spool:
            name = f"shard-{secrets.token_hex(8)}"
            spool.write(name, entire(pieces, size))
            try:
                with spool.piece(name).open("rb") as file:
                    files = shard.files_in(file)
            finally:
                spool.piece(name).unlink()
            return join(files, lambda hash: xorb.Xorb.open(spool.piece(hash)))

    async with store.uploads.slot(_holder(writer)) as threads:
        return await pour(request, read, threads, kind=None)


def _join_all(
    request: Request, upload: str, writer: Acting[XetGrant], files: tuple[Joined, ...]
) -> Iterator[int]:
    """Gives the files to the adapter, counting them."""
    name = writer.grant.name
    with store_of(request).spools.open(name.namespace, upload) as spool:
        for done, file in enumerate(files, 1):
            deliver(writer.registry, name, file.sha256, file.size, file.read)
            yield done
        spool.finish()


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


def _holder(writer: Acting[XetGrant]) -> Holder:
    return (writer.grant.name.namespace,)


def _failed(error: AdaptryError) -> bytes:
    return _frame(type="error", message=error.message, retryable=isinstance(error, Unavailable))


def _frame(**said: object) -> bytes:
    return json.dumps(said).encode() + b"\n"


def _id(request: Request, number: str, grant: XetGrant) -> str:
    """An upload's id: a number, and the proof that it was given out for the grant's adapter and token."""
    return number + store_of(request).signer.tag("xet", number, str(grant.name), grant.by)
