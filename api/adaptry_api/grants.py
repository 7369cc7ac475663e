"""Grants: what a caller may do, written down and signed, for calls that carry no token of theirs.

Clients of the Hub upload with a short-lived token of another service, or to an address that must speak for
itself. A grant says which adapter and which bytes it is for, until when, and by whose token it was asked for:
with that token revoked, it is worth nothing either.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import TypeVar

from itsdangerous import BadData, URLSafeSerializer
from pydantic import BaseModel, ConfigDict

from adaptry.core.errors import Invalid, Unauthenticated, Unavailable
from adaptry.core.refs import AdapterName
from adaptry.core.settings import read_secret

_SECRET_BYTES = 32
_LONGEST = 4096
_NOT_OURS = "this upload was not agreed on with this server; start it again"


class Grant(BaseModel):
    """`by` is the hash of the token it was asked for with, `until` a Unix time in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: AdapterName
    by: str
    until: int


Granted = TypeVar("Granted", bound=Grant)


class GrantSigner:
    """Signs with `secret`, else with one of its own, kept in the file at `path` (mode 0600), which every
    process of a server shares.
    """

    def __init__(self, path: Path, secret: bytes | None = None) -> None:
        self._path = path
        self._secret = secret

    def sign(self, grant: Grant) -> str:
        """The grant as text that fits into an address. Raises `Unavailable` where no secret can be kept."""
        return str(self._serializer(type(grant)).dumps(grant.model_dump(mode="json")))

    def verify(self, kind: type[Granted], text: str, now: float) -> Granted:
        """The grant that `text` is. Raises `Unauthenticated` for one of another kind, altered or expired."""
        try:
            grant = kind.model_validate(self._serializer(kind).loads(text if len(text) <= _LONGEST else ""))
        except (BadData, ValueError):
            raise Unauthenticated(_NOT_OURS) from None
        if self.sign(grant) != text:  # base64 has bits to spare in its last digit
            raise Unauthenticated(_NOT_OURS)
        if grant.until <= now:
            raise Unauthenticated("the time for this upload is over; start it again")
        return grant

    def mac_hex(self, *parts: str) -> str:
        """32 hex digits that only this server can find for `parts`."""
        return hmac.digest(self._key(), "\0".join(("tag", "\n".join(parts))).encode(), "sha256").hex()[:32]

    def _serializer(self, kind: type[Grant]) -> URLSafeSerializer:
        """Signs with a salt for each kind of grant, so a grant of one kind is never accepted as another."""
        how = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(self._key(), salt=kind.__name__, signer_kwargs=how)

    def _key(self) -> bytes:
        if self._secret is None:
            self._secret = _stored_secret(self._path)
        return self._secret


def read_signing_secret(path: Path) -> bytes:
    """What the text in a file amounts to. Raises `Invalid` for one that can be guessed, `Unavailable`."""
    text = read_secret(path, "the signing secret's setting")
    if len(text) < _SECRET_BYTES:
        raise Invalid(
            f"{path} is too short a secret: at least {_SECRET_BYTES} characters (openssl rand -hex 32)"
        )
    return hashlib.sha256(text.encode()).digest()


def _stored_secret(path: Path) -> bytes:
    """The secret in the file; else a new one, the same for all who come at once. Raises `Unavailable`."""
    try:
        if not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"cannot keep a secret in {path.parent}: {error.strerror}") from error
    if len(secret) != _SECRET_BYTES:
        raise Unavailable(f"{path} is not a secret of this server; remove it, and a new one is made")
    return secret


def _make(path: Path) -> None:
    """Puts a whole file in place, unless somebody was faster."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(_SECRET_BYTES))
        os.fsync(descriptor)
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        os.close(descriptor)
        draft.unlink()
