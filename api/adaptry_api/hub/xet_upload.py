"""What the routes of uploads through Xet share: the grant, and the address of one upload.

Newer clients of the Hub send large files through Xet only. Here the files are put together again and stored
as plain files by their SHA-256.

Every token comes with an address of its own (`casUrl`), and what is uploaded there is seen nowhere else: a
client assumes that chunks it has sent to an address once are there for ever, and nobody may refer to
another's. What the adapter's own files have, clients need not send: they ask for a chunk, and are told of the
file that has it. Reading never goes through Xet. One more address that clients try, for another way to send
xorbs, is not there, and the 404 makes them go on with these. Nor is that of their statistics.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request

from adaptry.core.errors import PermissionDenied
from adaptry_api.auth_policy import GrantContext, RequireGrant, app_state_of
from adaptry_api.grants import Grant
from adaptry_api.upload_slots import Holder

UPLOAD_PATH = "/xet/{upload}"


class XetGrant(Grant):
    """To send xorbs and shards to the addresses that were given for one adapter with one token."""


XetWriter = Annotated[GrantContext[XetGrant], Depends(RequireGrant(XetGrant))]


async def _upload(request: Request, upload: str, writer: XetWriter) -> str:
    """The upload's id. Raises `PermissionDenied` if the address was given for another adapter or caller."""
    if not hmac.compare_digest(upload_id(request, upload[:32], writer.grant).encode(), upload.encode()):
        raise PermissionDenied("this address is of another upload; start again")
    return upload


XetUploadId = Annotated[str, Depends(_upload)]


def slot_holder(writer: GrantContext[XetGrant]) -> Holder:
    return (writer.grant.name.namespace,)


def upload_id(request: Request, number: str, grant: XetGrant) -> str:
    """An upload's id: a number, and the proof that it was given out for the grant's adapter and token."""
    return number + app_state_of(request).signer.mac_hex("xet", number, str(grant.name), grant.by)
