"""`GET …/v1/chunks/{kind}/{hash}`: chunks in the adapter's own files, which need not be sent again."""

from __future__ import annotations

import time

from fastapi import Request
from starlette.responses import Response

from adaptry.core.errors import NotFound
from adaptry_api.auth_policy import app_state_of
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.xet.dedup_shard import SHARD_MEDIA_TYPE, dedup_shard
from adaptry_api.hub.xet.hashes import check_hash
from adaptry_api.hub.xet_upload import UPLOAD_PATH, XetUploadId, XetWriter
from adaptry_api.hub.xet_write_token import TOKEN_SECONDS

ROUTES = hub_router()


@ROUTES.get(f"{UPLOAD_PATH}/v1/chunks/{{kind}}/{{hash}}")
def known_chunk(request: Request, upload: XetUploadId, writer: XetWriter, kind: str, hash: str) -> Response:
    """The chunks of one of the adapter's own files that begins with this chunk, or has it in a place where
    clients query it. Raises `NotFound` if none of its files has the chunk, even if another adapter has it.
    """
    state, name = app_state_of(request), writer.grant.name
    file = state.chunk_maps.find_file_with_chunk(name, check_hash(hash))
    if file is None or not writer.registry.files.has(name, file):
        raise NotFound(f"no file of {name} is known to have this chunk; send it")
    now = int(time.time())
    return Response(
        dedup_shard(state.chunk_maps.iter_xorbs(name, file), now, now + TOKEN_SECONDS),
        media_type=SHARD_MEDIA_TYPE,
    )
