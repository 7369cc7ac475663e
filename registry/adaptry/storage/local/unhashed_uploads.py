"""Uploads that begin before the client knows the digest of the file, and state it later.

Until then, a session expects a digest that no file has, so it cannot be resumed by its digest. It is listed,
limited and cleaned up like any other.
"""

from __future__ import annotations

from dataclasses import replace

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Invalid
from adaptry.core.refs import AdapterName
from adaptry.registry.files import Owner
from adaptry.storage.catalog import files
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.files import UploadSessionRecord
from adaptry.storage.local.context import RegistryContext


def require_worthwhile(context: RegistryContext, tx: Transaction, owner: Owner, size: int) -> None:
    """Raises `Conflict` if the client should first hash the file: the adapter probably has it, an upload of
    it can be resumed, or its bytes go to a bucket; `Invalid` for a file of a base.
    """
    if not isinstance(owner, AdapterName):
        raise Invalid("the upload of a base's file needs the file's digest")
    if not context.blobs.is_on_this_machine or context.presign_uploads:
        raise Conflict("hash the file first: it is stored in a bucket")
    if files.of_size(tx, owner, size) or files.has_unfinished(tx, owner, size):
        raise Conflict(f"hash the file first: {owner} has a file of {size:,} bytes, or is receiving one")


def placeholder(key: str) -> Digest:
    """The digest that the session with this key expects until it gets the real digest of the file."""
    return Digest.of(f"upload without a digest: {key}".encode())


def is_unnamed(session: UploadSessionRecord) -> bool:
    """Whether the session waits for its digest."""
    return not session.is_finished and session.digest == placeholder(session.id)


def name(tx: Transaction, owner: Owner, digest: Digest, size: int, id: str) -> UploadSessionRecord | None:
    """Gives the owner's session `id` its digest; None if no session with this id waits for a digest."""
    session = files.find_session(tx, id)
    if session is None or not is_unnamed(session):
        return None
    if (session.owner, session.size) != (owner, size):
        return None
    files.set_expected(tx, id, digest)
    return replace(session, digest=digest)
