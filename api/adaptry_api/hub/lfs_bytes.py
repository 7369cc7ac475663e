"""The bytes of a file in one piece, sent to an address that speaks for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import JSONResponse, Response

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry_api.auth_policy import Acting, GrantHolder, store_of
from adaptry_api.bodies import pour
from adaptry_api.grants import Grant
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.uploads import ONCE, after, announced, deliver, entire

ROUTES = hub_router()
_ADDRESS = "/api/lfs/objects"


class PutGrant(Grant):
    """To send these bytes."""

    digest: Digest
    size: int


Sign = Callable[[Grant], str]


def address(grant: PutGrant, sign: Sign, origin: str) -> str:
    """Where to put the bytes."""
    return f"{origin}{_ADDRESS}?grant={sign(grant)}"


@ROUTES.put(_ADDRESS)
async def put(
    request: Request, sender: Annotated[Acting[PutGrant], Depends(GrantHolder(PutGrant))]
) -> Response:
    """Takes the whole file; what an earlier try brought is passed over, not written again."""
    grant = sender.grant
    if announced(request, grant.size) != grant.size:
        raise Invalid(f"this address is for {grant.size:,} bytes")

    def take(pieces: Iterator[bytes]) -> None:
        body = entire(pieces, grant.size)
        deliver(sender.registry, grant.name, grant.digest, grant.size, lambda start: after(body, start), ONCE)
        for _ in body:
            pass  # it was here already, and a client that is sending hears no answer

    async with store_of(request).uploads.slot((grant.name.namespace,)) as threads:
        await pour(request, take, threads, kind=None)
    return JSONResponse({})
