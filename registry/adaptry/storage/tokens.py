"""Tokens: `adr_<kind>_<32 characters><6 of a checksum>`, shown once, kept only as a hash.

The prefix lets secret scanners and our own logs recognise one, the checksum tells a typing error from an
unknown token without a look at the database. Whether the caller may make or revoke tokens is not asked here.

Every token has a second spelling, `hf_adr_…`, for clients of the Hub that send nothing else. It is the same
token: hashed, listed and revoked as the first. It keeps `adr_…` whole, so that one pattern finds both in a
leak, and so that no scanner takes it for a token of huggingface.co, which has letters and digits only behind
`hf_`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime

from adaptry.core.errors import Invalid, NotFound, Unauthenticated
from adaptry.core.identity import Identity, Role
from adaptry.storage.catalog import tokens as kept
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.tokens import TokenInfo

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(r"adr_[a-z]{2,8}_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")
_KIND = re.compile(r"[a-z]{2,8}")
_GLOB = re.compile(r"[A-Za-z0-9._*?\[\]-]{1,96}")
_HUB = "hf_"


def create_token(
    catalog: Catalog,
    name: str,
    role: Role,
    namespaces: Sequence[str],
    expires_at: datetime | None = None,
    *,
    kind: str = "pat",
) -> str:
    """A new token; its text is returned here and can never be had again. Raises `Invalid`."""
    if not _KIND.fullmatch(kind):
        raise Invalid(f"not a kind of token: {kind[:20]!r} (2 to 8 lower-case letters, such as pat or ci)")
    body = "".join(secrets.choice(_ALPHABET) for _ in range(32))
    secret = f"adr_{kind}_{body}{_checksum(body)}"
    info = _described(secret, kind, name, role, namespaces, expires_at)
    with catalog.write() as tx:
        kept.insert(tx, hash_token(secret), info)
    return secret


def to_hub_token(secret: str) -> str:
    """The same token for clients of the Hub that check how a token begins."""
    return _HUB + _canonical(secret)


def admit_token(catalog: Catalog, secret: str, name: str, role: Role, namespaces: Sequence[str]) -> None:
    """A token made elsewhere is good from now on; one that was here before stays as it is, revoked or not.

    Raises `Invalid` for a text that is no whole token.
    """
    secret = _canonical(secret)
    match = _SHAPE.fullmatch(secret)
    if match is None or not hmac.compare_digest(_checksum(match[1]), match[2]):
        raise Invalid("that is not a whole adaptry token (adr_pat_…); was it cut off when it was copied?")
    info = _described(secret, secret.split("_")[1], name, role, namespaces, None)
    with catalog.write() as tx:
        if kept.find(tx, hash_token(secret)) is None:
            kept.insert(tx, hash_token(secret), info)


def _described(
    secret: str, kind: str, name: str, role: Role, namespaces: Sequence[str], expires_at: datetime | None
) -> TokenInfo:
    """A new token as it is listed. Raises `Invalid`."""
    if not 1 <= len(name) <= 96 or not name.isprintable():
        raise Invalid("a token needs a name of 1 to 96 printable characters, to tell it by later")
    if not namespaces or not all(_GLOB.fullmatch(glob) for glob in namespaces):
        raise Invalid("a token holds in one namespace or more, such as acme, team-* or *")
    now = datetime.now(UTC)
    if expires_at is not None and expires_at <= now:
        raise Invalid(f"the token would have expired already, at {expires_at:%Y-%m-%d %H:%M}")
    return TokenInfo(
        id=0,
        kind=kind,
        name=name,
        role=role,
        namespaces=tuple(namespaces),
        last_four=secret[-4:],
        created_at=now,
        expires_at=expires_at,
    )


def identify(catalog: Catalog, secret: str) -> Identity:
    """Whose token that is. Raises `Unauthenticated`, after the same work for every reason."""
    match = _SHAPE.fullmatch(_canonical(secret))
    is_whole = match is not None and hmac.compare_digest(_checksum(match[1]), match[2])
    with catalog.read() as tx:
        token = kept.find(tx, hash_token(secret))
    if not is_whole:
        raise Unauthenticated("that is not a whole adaptry token; was it cut off when it was copied?")
    return _valid(token)


def identify_hash(catalog: Catalog, secret_sha256: str) -> Identity:
    """As `identify`, of a token shown earlier, stored as its `hash_token`. Raises `Unauthenticated`."""
    with catalog.read() as tx:
        return _valid(kept.find(tx, secret_sha256))


def _valid(token: TokenInfo | None) -> Identity:
    if token is None or token.revoked_at is not None:
        raise Unauthenticated("that token is unknown or revoked; ask for a new one (`adaptry token create`)")
    if token.expires_at is not None and token.expires_at <= datetime.now(UTC):
        raise Unauthenticated("that token has expired; ask for a new one (`adaptry token create`)")
    return Identity(token.name, token.role, token.namespaces)


def revoke_token(catalog: Catalog, id: int) -> None:
    """The token opens nothing from now on. Raises `NotFound` where no valid one has that id."""
    with catalog.write() as tx:
        if not kept.revoke(tx, id, datetime.now(UTC)):
            raise NotFound(f"no valid token has the id {id}; `adaptry token ls` shows them")


def revoke_own_token(catalog: Catalog, secret: str) -> None:
    """Revokes the token found where it should not be; does the same, nothing, for one that is none."""
    with catalog.write() as tx:
        token = kept.find(tx, hash_token(secret))
        kept.revoke(tx, token.id if token else 0, datetime.now(UTC))


def list_tokens(catalog: Catalog) -> tuple[TokenInfo, ...]:
    """Every token there ever was, oldest first, without the secrets."""
    with catalog.read() as tx:
        return kept.every(tx)


def hash_token(secret: str) -> str:
    """What is kept of a token, whichever way it is spelled."""
    # 190 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(_canonical(secret).encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(secret: str) -> str:
    return secret.removeprefix(_HUB)


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits
