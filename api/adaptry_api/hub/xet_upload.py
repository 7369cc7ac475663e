"""Shared by the Xet upload routes: the grant, and the address of one upload.

Newer clients of the Hub send large files only through Xet. The server joins the files again and stores them
as plain files by their SHA-256.

Every token comes with its own address (`casUrl`), and chunks uploaded there are visible nowhere else: a
client assumes that chunks sent to an address stay there permanently, and one upload cannot refer to chunks of
another. Clients need not send chunks of the adapter's own files: they query a chunk, and the answer names the
file that contains it. Downloads never use Xet. Clients also try two routes that we do not have: another way
to send xorbs (after a 404, they use this one), and one for their statistics.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request

from adaptry.core.errors import PermissionDenied
from adaptry_api.auth_policy import GrantContext, RequireGrant, app_state_of
from adaptry_api.signed_grants import SignedGrant
from adaptry_api.upload_slots import Holder

UPLOAD_PATH = "/xet/{upload}"


class XetGrant(SignedGrant):
    """A grant to send xorbs and shards to the upload addresses of one adapter and one token."""


XetWriter = Annotated[GrantContext[XetGrant], Depends(RequireGrant(XetGrant))]


async def _upload(request: Request, upload: str, writer: XetWriter) -> str:
    """The upload's id. Raises `PermissionDenied` if the address is for another adapter or caller."""
    if not hmac.compare_digest(upload_id(request, upload[:32], writer.grant).encode(), upload.encode()):
        raise PermissionDenied("this address belongs to another upload; start the upload again")
    return upload


XetUploadId = Annotated[str, Depends(_upload)]


def slot_holder(writer: GrantContext[XetGrant]) -> Holder:
    return (writer.grant.name.namespace,)


def upload_id(request: Request, number: str, grant: XetGrant) -> str:
    """An upload's id: a number, and the proof that the server issued it for the grant's adapter and token."""
    return number + app_state_of(request).signer.mac_hex("xet", number, str(grant.name), grant.by)
