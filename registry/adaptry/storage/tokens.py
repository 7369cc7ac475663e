"""Tokens: `adr_<kind>_<32 characters><6 of a checksum>`, shown once, kept only as a hash.

Secret scanners and our own logs recognise tokens by the prefix; the checksum distinguishes a typing error
from an unknown token without a database query. Access rules for creating and revoking tokens are not checked
here.

Every token has a second spelling, `hf_adr_…`, for clients of the Hub that accept no other prefix. It is the
same token: hashed, listed and revoked like the first. It contains `adr_…`, so that one pattern finds both in
a leak, and so that no scanner takes it for a token of huggingface.co, which has only letters and digits after
`hf_`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from typing import NamedTuple

from adaptry.core.access.grants import Grant, Limit, check_grant
from adaptry.core.access.resources import Resource
from adaptry.core.access.roles import ROLES
from adaptry.core.errors import Conflict, Invalid, NotFound, Unauthenticated
from adaptry.core.identity import LOCAL, Identity, require_unreserved
from adaptry.registry.access import PrincipalKind, TokenInfo
from adaptry.storage.catalog import grants, principals, refresh_tokens
from adaptry.storage.catalog import tokens as kept
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record
from adaptry.storage.catalog.database import Catalog, Reads, Transaction
from adaptry.storage.catalog.principals import PrincipalRecord
from adaptry.storage.catalog.tokens import TokenRecord

CONFIRMED_FOR = timedelta(hours=1)
"""How long sessions and tokens of an external user are valid after the provider knew the user."""
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(r"adr_[a-z]{2,8}_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")
_KIND = re.compile(r"[a-z]{2,8}")
_HUB = "hf_"


class IssuedToken(NamedTuple):
    """A new token's id and its text, which is not stored."""

    id: int
    name: str
    secret: str


def create_token(
    catalog: Catalog,
    name: str,
    role: str,
    resources: Sequence[str],
    expires_at: datetime | None = None,
    *,
    kind: str = "pat",
) -> str:
    """The text of a new token, as created by `issue_with_role`. Raises `Invalid`."""
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise Invalid(f"the token's expiry, {expires_at:%Y-%m-%d %H:%M}, is in the past")
    with catalog.write() as tx:
        return issue_with_role(tx, name, role, resources, expires_at, LOCAL.name, kind=kind).secret


def issue_with_role(
    tx: Transaction,
    name: str,
    role: str,
    resources: Sequence[str],
    expires_at: datetime | None,
    by: str,
    *,
    kind: str = "pat",
) -> IssuedToken:
    """A token of the user `name` (a worker, for the role of one), who is created if missing and granted the
    role on the resources; the token is limited to it, and named like them. Raises `Invalid`.
    """
    return _store_with_role(tx, new_secret(kind), name, role, resources, expires_at, by)


def issue_narrowed_to_role(
    tx: Transaction,
    principal: PrincipalRecord,
    role: str,
    resources: Sequence[str],
    expires_at: datetime | None,
    external: int,
) -> IssuedToken:
    """A token that an external user creates for themselves, limited to the role as by `issue_with_role`.

    It grants nothing: the user has the role only as long as the identity provider's groups give it. Raises
    `Invalid`.
    """
    limit = _role_limit(role, resources)
    name = free_name(tx, principal, principal.info.name)
    return issue(tx, principal, name, limit, expires_at, principal.info.name, external=external)


def issue(
    tx: Transaction,
    principal: PrincipalRecord,
    name: str,
    limit: Limit | None,
    expires_at: datetime | None,
    by: str,
    *,
    kind: str | None = None,
    external: int | None = None,
) -> IssuedToken:
    """Creates a token of a principal, by default of the principal's kind. With `external`, the token is valid
    only while that external user is confirmed. Raises `Invalid`, and `Conflict` if they have or had one of
    that name.
    """
    if name in kept.names(tx, principal.key):
        raise Conflict(
            f"{principal.info.name} already has a token {name!r} (`adaptry token ls`); choose another name"
        )
    kind = kind or ("wrk" if principal.info.kind == "worker" else "pat")
    return _store(tx, new_secret(kind), principal, name, limit, expires_at, by, external)


def new_secret(kind: str) -> str:
    """A new random secret in the form of a token of that kind. Raises `Invalid`."""
    if not _KIND.fullmatch(kind):
        raise Invalid(f"not a kind of token: {kind[:20]!r} (2 to 8 lower-case letters, such as pat or ci)")
    body = "".join(secrets.choice(_ALPHABET) for _ in range(32))
    return f"adr_{kind}_{body}{_checksum(body)}"


def to_hub_token(secret: str) -> str:
    """The same token in the form that clients of the Hub accept, which check its prefix."""
    return _HUB + _canonical(secret)


def admit_token(catalog: Catalog, secret: str, name: str, role: str, resources: Sequence[str]) -> None:
    """Makes a token that was created elsewhere valid; a known token stays as it is, revoked or not.

    Raises `Invalid` if the text is not a complete token.
    """
    secret = _canonical(secret)
    match = _SHAPE.fullmatch(secret)
    if match is None or not hmac.compare_digest(_checksum(match[1]), match[2]):
        raise Invalid("that is not a complete adaptry token (adr_pat_…); check that you copied all of it")
    with catalog.write() as tx:
        if kept.find(tx, hash_token(secret)) is None:
            _store_with_role(tx, secret, name, role, resources, None, LOCAL.name)


def _store_with_role(
    tx: Transaction,
    secret: str,
    name: str,
    role: str,
    resources: Sequence[str],
    expires_at: datetime | None,
    by: str,
) -> IssuedToken:
    limit = _role_limit(role, resources)
    check_name(name)
    now = datetime.now(UTC)
    kind: PrincipalKind = "worker" if role == "worker" else "user"
    principal = principals.find(tx, name)
    if principal is None:
        require_unreserved(name)
        principal = principals.insert(tx, kind, name, None, now, by)
    require_able(principal)
    for resource in limit.resources or ():
        granted = grants.add(tx, principal, check_grant(Grant(role, resource)), now, by).info
        facts = {"grant": granted.id, "principal": name, "permission": role}
        if granted.created_at == now:
            record(tx, "grant.add", AuditTarget.of_grant(resource), now, after=facts, by=by)
    return _store(tx, secret, principal, free_name(tx, principal, name), limit, expires_at, by)


def _role_limit(role: str, resources: Sequence[str]) -> Limit:
    """A token's limit to a role on some resources. Raises `Invalid`."""
    if role not in ROLES:
        raise Invalid(f"no role {role[:40]!a} (one of: {', '.join(ROLES)})")
    if not resources:
        raise Invalid("a token must be valid in at least one namespace, such as acme, team-* or *")
    return Limit((role,), tuple(map(Resource.parse, resources)))


def require_able(principal: PrincipalRecord) -> None:
    """Raises `Conflict` if the principal is disabled, since a new token would not work."""
    if principal.info.disabled_at is not None:
        raise Conflict(
            f"{principal.info.name} is disabled; enable it first: adaptry user enable {principal.info.name}"
        )


def free_name(tx: Transaction, principal: PrincipalRecord, name: str) -> str:
    """A name that no token of the principal has or had: `name`, else with a number appended."""
    taken = kept.names(tx, principal.key)
    return next(one for one in chain((name,), (f"{name}-{n}" for n in count(2))) if one not in taken)


def _store(
    tx: Transaction,
    secret: str,
    principal: PrincipalRecord,
    name: str,
    limit: Limit | None,
    expires_at: datetime | None,
    by: str,
    external: int | None = None,
) -> IssuedToken:
    check_name(name)
    now = datetime.now(UTC)
    kind = secret.split("_")[1]
    digest, end = hash_token(secret), secret[-4:]
    token = kept.NewToken(digest, end, kind, principal.key, name, limit, expires_at, external)
    return IssuedToken(kept.insert(tx, token, now, by), name, secret)


def check_name(name: str) -> None:
    """Checks the name of a token. Raises `Invalid`."""
    if not 1 <= len(name) <= 96 or not name.isprintable():
        raise Invalid("a token needs a name of 1 to 96 printable characters")


def identify(catalog: Catalog, secret: str) -> Identity:
    """The identity of a token. Raises `Unauthenticated`, in the same time for every reason."""
    match = _SHAPE.fullmatch(_canonical(secret))
    is_whole = match is not None and hmac.compare_digest(_checksum(match[1]), match[2])
    with catalog.read_prepared() as tx:
        token = kept.find(tx, hash_token(secret))
        if not is_whole:
            raise Unauthenticated("that is not a complete adaptry token; check that you copied all of it")
        return _valid(tx, token)


def identify_hash(catalog: Catalog, secret_sha256: str) -> Identity:
    """Like `identify`, for an earlier token stored as its `hash_token`. Raises `Unauthenticated`."""
    with catalog.read_prepared() as tx:
        return _valid(tx, kept.find(tx, secret_sha256))


def _valid(tx: Reads, token: TokenRecord | None) -> Identity:
    if token is None or token.info.revoked_at is not None:
        raise Unauthenticated("that token is unknown or revoked; ask for a new one (`adaptry token create`)")
    if token.info.expires_at is not None and token.info.expires_at <= datetime.now(UTC):
        raise Unauthenticated("that token has expired; ask for a new one (`adaptry token create`)")
    if token.external is not None and not is_confirmed(token.confirmed_at, datetime.now(UTC)):
        raise Unauthenticated(
            "the identity provider has not confirmed that token's user for an hour; sign in again"
        )
    if token.is_disabled:
        raise Unauthenticated(f"{token.info.principal} is disabled; ask an administrator")
    return kept.identity_of(tx, token)


def is_confirmed(at: datetime | None, now: datetime) -> bool:
    """Whether an identity provider confirmed a user recently enough, at `at`."""
    return at is not None and now - at < CONFIRMED_FOR


def revoke_token(catalog: Catalog, id: int) -> None:
    """Revokes a token. Raises `NotFound` if no valid token has that id."""
    with catalog.write() as tx:
        if not kept.revoke(tx, id, datetime.now(UTC)):
            raise NotFound(f"no valid token has the id {id}; `adaptry token ls` shows them")


def revoke_own_token(catalog: Catalog, secret: str) -> None:
    """Revokes a leaked token, or the program's sign-in to which a leaked refresh token belongs; does nothing
    if the text is neither.
    """
    digest = hash_token(secret)
    with catalog.write() as tx:
        if (token := kept.find(tx, digest)) is not None:
            kept.revoke(tx, token.info.id, datetime.now(UTC))
        elif (refresh := refresh_tokens.find(tx, digest)) is not None:
            kept.revoke(tx, refresh.token, datetime.now(UTC))


def list_tokens(catalog: Catalog) -> tuple[TokenInfo, ...]:
    """Every token ever created, oldest first, without the secrets."""
    with catalog.read() as tx:
        return kept.every(tx)


def record_use(catalog: Catalog, used: Mapping[int, datetime]) -> None:
    """Stores the times of last use, by token id."""
    with catalog.write_nondurable() as tx:
        kept.record_use(tx, used)


def hash_token(secret: str) -> str:
    """The hash under which a token is stored; both spellings of a token have the same hash."""
    # 190 random bits need no slow hash: they cannot be guessed.
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
