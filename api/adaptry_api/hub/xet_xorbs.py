"""`POST …/v1/xorbs/default/{hash}`: receives a xorb of an upload."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from starlette.responses import JSONResponse, Response

from adaptry_api.auth_policy import app_state_of
from adaptry_api.bodies import stream_body
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.uploads import content_length, require_length
from adaptry_api.hub.xet import xorb
from adaptry_api.hub.xet.hashes import check_hash
from adaptry_api.hub.xet_upload import UPLOAD_PATH, XetUploadId, XetWriter, slot_holder

ROUTES = hub_router()


@ROUTES.post(f"{UPLOAD_PATH}/v1/xorbs/default/{{hash}}")
async def put_xorb(request: Request, upload: XetUploadId, writer: XetWriter, hash: str) -> Response:
    """Unpacks the body as it arrives, and keeps the chunks for the shards that follow. The first file of
    these is already being stored.
    """
    state, name = app_state_of(request), check_hash(hash)
    size = content_length(request, xorb.MAX_BODY_BYTES)

    def keep(pieces: Iterator[bytes]) -> None:
        adapter = writer.grant.name
        with state.spools.open(adapter.namespace, upload) as spool:
            join = state.early_joins.open(upload, writer.registry.uploads, adapter)
            with join.receiving(spool.piece_path(name), size) as split:
                spool.write(name, split(xorb.unpack_chunks(require_length(pieces, size))))

    async with state.uploads.slot(slot_holder(writer)) as threads:
        await stream_body(request, keep, threads, kind=None)
    return JSONResponse({"was_inserted": True})
