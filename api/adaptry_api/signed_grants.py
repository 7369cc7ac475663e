"""Signed grants: signed permissions of a caller, for requests without the caller's token.

Clients of the Hub upload with a short-lived token of another service, or to an address without any token. A
grant names the adapter and the bytes it is for, its expiry, and the token that it was requested with: if that
token is revoked, the grant is invalid too.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import ClassVar, TypeVar

from itsdangerous import BadData, URLSafeSerializer
from pydantic import BaseModel, ConfigDict

from adaptry.core.errors import Invalid, Unauthenticated, Unavailable
from adaptry.core.refs import AdapterName
from adaptry.core.settings import read_secret

_SECRET_BYTES = 32
_MAX_LENGTH = 4096
_NOT_OURS = "this upload's grant was not issued by this server; start the upload again"


class SignedStatement(BaseModel):
    """`by` is the hash of the token that it was requested with, `until` a Unix time in seconds."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    by: str
    until: int


class SignedGrant(SignedStatement):
    """A permission on the adapter `name`."""

    name: AdapterName


Granted = TypeVar("Granted", bound=SignedStatement)


class GrantSigner:
    """Signs with `secret`. Without one, it creates a secret in the file at `path` (mode 0600), which all
    processes of a server share.
    """

    def __init__(self, path: Path, secret: bytes | None = None) -> None:
        self._path = path
        self._secret = secret

    def sign(self, grant: SignedStatement) -> str:
        """The grant as text that fits into a URL. Raises `Unavailable` if the secret cannot be stored."""
        return str(self._serializer(type(grant)).dumps(grant.model_dump(mode="json")))

    def verify(self, kind: type[Granted], text: str, now: float) -> Granted:
        """The grant in `text`. Raises `Unauthenticated` if it is of another kind, altered or expired."""
        serializer = self._serializer(kind)
        try:
            document = serializer.loads(text if len(text) <= _MAX_LENGTH else "")
            grant = kind.model_validate(document)
        except (BadData, ValueError):
            raise Unauthenticated(_NOT_OURS) from None
        if str(serializer.dumps(document)) != text:  # the last digit of base64 has unused bits
            raise Unauthenticated(_NOT_OURS)
        if grant.until <= now:
            raise Unauthenticated("this upload's grant has expired; start the upload again")
        return grant

    def mac_hex(self, *parts: str) -> str:
        """32 hex digits that only this server can compute for `parts`."""
        return hmac.digest(self._key(), "\0".join(("tag", "\n".join(parts))).encode(), "sha256").hex()[:32]

    def derived_key(self, purpose: str) -> bytes:
        """32 bytes that are the same on every server of a registry, for one purpose."""
        return hmac.digest(self._key(), f"key\0{purpose}".encode(), "sha256")

    def _serializer(self, kind: type[SignedStatement]) -> URLSafeSerializer:
        """Signs with a salt for each kind of grant, so a grant of one kind is never accepted as another."""
        how = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(self._key(), salt=kind.__name__, signer_kwargs=how)

    def _key(self) -> bytes:
        if self._secret is None:
            self._secret = _stored_secret(self._path)
        return self._secret


def read_signing_secret(path: Path) -> bytes:
    """The secret in a file. Raises `Invalid` if it is so short that it can be guessed, and `Unavailable`."""
    text = read_secret(path, "the signing secret's setting")
    if len(text) < _SECRET_BYTES:
        raise Invalid(
            f"the secret in {path} is too short: at least {_SECRET_BYTES} characters (openssl rand -hex 32)"
        )
    return hashlib.sha256(text.encode()).digest()


def _stored_secret(path: Path) -> bytes:
    """The secret in the file; if it has none, a new one, the same for concurrent callers. Raises
    `Unavailable`.
    """
    try:
        if not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"cannot store a secret in {path.parent}: {error.strerror}") from error
    if len(secret) != _SECRET_BYTES:
        raise Unavailable(
            f"{path} does not hold a secret of this server; remove it, and the server creates a new one"
        )
    return secret


def _make(path: Path) -> None:
    """Writes the complete file, unless another process has written it first."""
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
