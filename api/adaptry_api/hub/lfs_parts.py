"""Receives a large file in parts, each at its own URL, in any order and possibly repeated; then joins them.

Parts are kept in a spool, since an upload of the registry accepts bytes only in order. So the client waits
at the end, while the file is joined, hashed and inspected. A file sent in one piece is hashed and inspected
as it arrives.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Depends, Request
from starlette.responses import JSONResponse, Response

from adaptry.core.errors import Conflict, Invalid
from adaptry_api.auth_policy import GrantContext, RequireGrant, app_state_of
from adaptry_api.bodies import stream_body
from adaptry_api.hub.lfs_bodies import LFS_MEDIA_TYPE, LfsCompletionRequest, read_lfs_body
from adaptry_api.hub.lfs_objects import PutGrant, Sign
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.upload_spool import UploadSpool
from adaptry_api.hub.uploads import content_length, require_length, store_file
from adaptry_api.signed_grants import SignedGrant

ROUTES = hub_router()
_ADDRESS = "/api/lfs/parts"
_PIECE = 1 << 20


class PartGrant(SignedGrant):
    """A grant to upload one part."""

    spool: str
    number: int
    length: int


class JoinGrant(PutGrant):
    """A grant to join the file from its parts, each of `part` bytes except the last."""

    spool: str
    part: int

    @property
    def lengths(self) -> list[int]:
        """The length of each part."""
        return [min(self.part, self.size - at) for at in range(0, self.size, self.part)]


def addresses(grant: PutGrant, part: int, sign: Sign, origin: str) -> dict[str, Any]:
    """The upload URLs of the parts of `part` bytes, and the URL to call after the last. (`Any`: JSON.)"""
    join = JoinGrant(**dict(grant), spool=secrets.token_hex(32), part=part)
    header = {"chunk_size": str(part)}
    for number, length in enumerate(join.lengths, 1):
        one = PartGrant(
            name=grant.name, by=grant.by, until=grant.until, spool=join.spool, number=number, length=length
        )
        header[str(number)] = f"{origin}{_ADDRESS}?grant={sign(one)}"
    return {"href": f"{origin}{_ADDRESS}?grant={sign(join)}", "header": header}


@ROUTES.put(_ADDRESS)
async def put(
    request: Request, sender: Annotated[GrantContext[PartGrant], Depends(RequireGrant(PartGrant))]
) -> Response:
    """Keeps one part; clients take the `ETag` as a receipt."""
    grant, state = sender.grant, app_state_of(request)
    if content_length(request, grant.length) != grant.length:
        raise Invalid(f"this URL is for {grant.length:,} bytes")

    def keep(pieces: Iterator[bytes]) -> None:
        with state.spools.open(grant.name.namespace, grant.spool) as spool:
            spool.write(_piece(grant.number), require_length(pieces, grant.length))

    async with state.uploads.slot((grant.name.namespace,)) as threads:
        await stream_body(request, keep, threads, kind=None)
    return JSONResponse({}, headers={"ETag": f'"{grant.spool[:32]}-{grant.number}"'})


@ROUTES.post(_ADDRESS)
async def join(
    request: Request, sender: Annotated[GrantContext[JoinGrant], Depends(RequireGrant(JoinGrant))]
) -> Response:
    """Joins the file; a repeated call, after a lost answer, is a no-op."""
    grant, state = sender.grant, app_state_of(request)
    completion = await read_lfs_body(request, LfsCompletionRequest)
    numbers = [part.part_number for part in completion.parts]
    if completion.oid != grant.digest.hex or sorted(numbers) != list(range(1, len(grant.lengths) + 1)):
        raise Invalid(
            f"this URL is for {grant.digest.brief} in {len(grant.lengths)} parts; list each part once"
        )

    def is_made() -> bool:
        return sender.registry.files.has(grant.name, grant.digest)

    def make() -> None:
        if is_made():
            return
        with state.spools.open(grant.name.namespace, grant.spool) as spool, spool.exclusive():
            if is_made():
                return  # another call joined the file while this one waited
            parts = [_whole(spool, number, length) for number, length in enumerate(grant.lengths, 1)]
            store_file(
                sender.registry,
                grant.name,
                grant.digest,
                grant.size,
                lambda start: _joined(parts, grant.part, start),
            )
            spool.clear()

    async with state.uploads.slot((grant.name.namespace,)) as threads:
        await to_thread.run_sync(make, limiter=threads)
    return JSONResponse({}, media_type=LFS_MEDIA_TYPE)


def _piece(number: int) -> str:
    return f"part-{number:05}"


def _whole(spool: UploadSpool, number: int, length: int) -> Path:
    path = spool.piece_path(_piece(number))
    if not path.exists() or path.stat().st_size != length:
        raise Conflict(f"part {number} is missing; send it, then complete the upload again")
    return path


def _joined(parts: list[Path], part: int, start: int) -> Iterator[bytes]:
    """The file's bytes from `start` on, in pieces of at most 1 MiB."""
    for path in parts[start // part :]:
        with path.open("rb", buffering=0) as file:
            file.seek(start % part)
            while piece := file.read(_PIECE):
                yield piece
        start = 0
