"""The Git LFS batch, in which the client announces files and gets their upload URLs, and the final check that
a file arrived.

Bytes are sent without a token, so each URL contains a grant. Files that the adapter already has are not
uploaded again, and the answer does not reveal whether another adapter has them.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from adaptry.core.errors import NotFound, Unsupported
from adaptry.core.manifest import MAX_FILE
from adaptry.core.refs import AdapterName
from adaptry.registry.files import Files
from adaptry_api.auth_policy import Caller, CallersRegistry, app_state_of
from adaptry_api.hub import lfs_objects, lfs_parts
from adaptry_api.hub.addresses import Name, origin, url_path_of
from adaptry_api.hub.lfs_bodies import LFS_MEDIA_TYPE, LfsBatchRequest, LfsObject, read_lfs_body
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.uploads import require_writer, token_hash
from adaptry_api.hub.xet_write_token import xet_action
from adaptry_api.route_threads import run_in_own_threads

ROUTES = hub_router()
GRANT_SECONDS = 12 * 3600
"""How long an upload URL is valid: on a slow line, the last part of a large file is sent long after the
batch.
"""

_LFS = "/{namespace}/{name}.git/info/lfs/objects"


@ROUTES.post(f"{_LFS}/batch")
async def batch(request: Request, name: Name, identity: Caller, registry: CallersRegistry) -> Response:
    announced = await read_lfs_body(request, LfsBatchRequest)
    if announced.operation != "upload":
        raise Unsupported("download files from /resolve/, not through Git LFS")
    way = "xet" if announced.wants_xet else "basic"
    offer = _UploadUrls(request, name, "multipart" in announced.transfers, by_xet=announced.wants_xet)

    def answer() -> list[dict[str, Any]]:
        require_writer(registry, identity, name)
        missing = {
            one.digest: one.size for one in announced.objects if not registry.files.has(name, one.digest)
        }
        registry.quotas.require_room(name, sum(missing.values()))  # before a byte is sent
        return [offer.of(registry.files, wanted) for wanted in announced.objects]

    return JSONResponse(
        {"transfer": way, "objects": await run_in_own_threads("reads", answer)}, media_type=LFS_MEDIA_TYPE
    )


@ROUTES.post(f"{_LFS}/verify")
async def verify(request: Request, name: Name, identity: Caller, registry: CallersRegistry) -> Response:
    """Responds with 200 once the adapter has the file."""
    wanted = await read_lfs_body(request, LfsObject)

    def check() -> None:
        require_writer(registry, identity, name)
        if not registry.files.has(name, wanted.digest):
            raise NotFound(f"{name} has no file {wanted.digest.brief}; upload it again")

    await run_in_own_threads("reads", check)
    return JSONResponse({}, media_type=LFS_MEDIA_TYPE)


class _UploadUrls:
    """The upload URLs of the files of one batch. (`Any`: JSON.)"""

    def __init__(self, request: Request, name: AdapterName, in_parts: bool, *, by_xet: bool) -> None:
        self._name = name
        self._xet = xet_action(request, name) if by_xet else None
        self._by = token_hash(request)
        self._until = int(time.time()) + GRANT_SECONDS
        self._origin = origin(request)
        state = app_state_of(request)
        self._whole = state.whole_bytes if in_parts else MAX_FILE
        self._part = state.part_bytes
        self._sign = state.signer.sign

    def of(self, files: Files, wanted: LfsObject) -> dict[str, Any]:
        entry: dict[str, Any] = {"oid": wanted.oid, "size": wanted.size}
        if wanted.size > MAX_FILE:
            text = f"the file has {wanted.size:,} bytes; the limit is {MAX_FILE >> 30} GiB"
            return entry | {"error": {"code": 422, "message": text}}
        if files.has(self._name, wanted.digest):
            return entry
        if self._xet:
            return entry | {"actions": {"upload": self._xet}}
        grant = lfs_objects.PutGrant(
            name=self._name, by=self._by, until=self._until, digest=wanted.digest, size=wanted.size
        )
        if wanted.size > self._whole:
            upload = lfs_parts.addresses(grant, self._part, self._sign, self._origin)
        else:
            upload = {"href": lfs_objects.address(grant, self._sign, self._origin), "header": {}}
        verify = f"{self._origin}/{url_path_of(str(self._name))}.git/info/lfs/objects/verify"
        return entry | {"actions": {"upload": upload, "verify": {"href": verify, "header": {}}}}
