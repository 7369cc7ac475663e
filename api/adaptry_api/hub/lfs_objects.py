"""Receives a file in one piece, at a URL that contains the grant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import JSONResponse, Response

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry_api.auth_policy import GrantContext, RequireGrant, app_state_of
from adaptry_api.bodies import stream_body
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.uploads import BODY_RETRIES, RequestBody, content_length, store_file
from adaptry_api.signed_grants import SignedGrant

ROUTES = hub_router()
_ADDRESS = "/api/lfs/objects"


class PutGrant(SignedGrant):
    """The grant to upload this file."""

    digest: Digest
    size: int


Sign = Callable[[SignedGrant], str]


def address(grant: PutGrant, sign: Sign, origin: str) -> str:
    """The upload URL of a file."""
    return f"{origin}{_ADDRESS}?grant={sign(grant)}"


@ROUTES.put(_ADDRESS)
async def put(
    request: Request, sender: Annotated[GrantContext[PutGrant], Depends(RequireGrant(PutGrant))]
) -> Response:
    """Receives the whole file; bytes that an earlier attempt stored are skipped, not written again."""
    grant = sender.grant
    if content_length(request, grant.size) != grant.size:
        raise Invalid(f"this URL is for {grant.size:,} bytes")

    def take(pieces: Iterator[bytes]) -> None:
        body = RequestBody(pieces, grant.size)
        store_file(sender.registry, grant.name, grant.digest, grant.size, body.read, BODY_RETRIES)
        body.skip_rest()

    async with app_state_of(request).uploads.slot((grant.name.namespace,)) as threads:
        await stream_body(request, take, threads, kind=None)
    return JSONResponse({})
