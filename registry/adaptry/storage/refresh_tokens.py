"""Refresh tokens of programs that their users approved in a browser (RFC 6749 §6, RFC 9700 §4.14.2).

Each is exchanged once, for an access token and the next refresh token. If one is presented again, it has been
copied, and the program's sign-in ends. For a few minutes, and while the next refresh token is unused, a
repetition counts as a retry after a lost answer: it replaces the tokens of that answer.

Like access tokens, they are valid while the user is enabled and the identity provider confirms them. Revoking
any of the program's access tokens ends its sign-in.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from adaptry.core.errors import Busy, Unauthenticated, Unavailable
from adaptry.core.identity import Identity
from adaptry.registry.access import CreatedToken
from adaptry.storage import tokens
from adaptry.storage.catalog import principals
from adaptry.storage.catalog import refresh_tokens as kept
from adaptry.storage.catalog import tokens as access_tokens
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record, set_actor
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.tokens import TokenRecord

ACCESS_LIFETIME = timedelta(days=30)
LIFETIME = timedelta(days=90)
RETRY = timedelta(minutes=10)
"""How long an exchange may be repeated: clients of the Hub repeat one after five minutes."""
OVERLAP = timedelta(hours=1)
"""How long a replaced access token works at most, for programs that read it before."""
_MAX_ISSUED, _WINDOW = 20, timedelta(hours=1)
_KIND = "rft"
_REFUSED = "that refresh token is unknown, expired or revoked; sign in again"


class RefreshTokenReused(Unauthenticated):
    """A refresh token was presented a second time; the program's sign-in has ended."""


class ProgramTokens(NamedTuple):
    """The tokens of a program: an access token, and the refresh token for the next one."""

    access: CreatedToken
    refresh_token: str


def begin(
    tx: Transaction,
    principal: int,
    external: int | None,
    client_id: str,
    until: datetime | None,
    now: datetime,
) -> ProgramTokens:
    """The first tokens of a program that a user approved; `until` is when they expire at the latest."""
    family = secrets.token_hex(6)
    return _issue(
        tx, principal, external, kept.RefreshToken("", family, client_id, 0, now, None, None, until), now
    )


def refresh(catalog: Catalog, secret: str, client_id: str, now: datetime | None = None) -> ProgramTokens:
    """New tokens in exchange for a refresh token of the program `client_id`.

    Raises `Unauthenticated` if it is not valid, `RefreshTokenReused` if it was used before, `Unavailable`
    while the identity provider has not confirmed the user, and `Busy` for a program that refreshes too often.
    """
    now, digest = now or datetime.now(UTC), tokens.hash_token(secret)
    with (
        catalog.read() as tx
    ):  # any caller may request this; a write transaction begins only for valid tokens
        if kept.find(tx, digest) is None:
            raise Unauthenticated(_REFUSED)
    with catalog.write() as tx:
        found = kept.find(tx, digest)
        if found is None or found.client_id != client_id or _end(found) <= now:
            raise Unauthenticated(_REFUSED)
        owner = access_tokens.by_id(tx, found.token)
        assert owner is not None, "tokens are never deleted while they have a refresh token"
        set_actor(tx, Identity(owner.info.principal, principal=owner.principal))
        if found.may_be_used(now):
            _require_valid(tx, found, owner, now)
            return _rotate(tx, found, owner, now)
        access_tokens.revoke(tx, found.token, now)
        reason = {"because": "a refresh token was used twice, so it was copied", "token": owner.info.name}
        record(tx, "session.end", AuditTarget(owner.info.principal), now, after=reason)
    raise RefreshTokenReused("that refresh token was used before, so this sign-in has ended; sign in again")


def _require_valid(tx: Transaction, found: kept.RefreshToken, owner: TokenRecord, now: datetime) -> None:
    """Raises `Unauthenticated`, `Unavailable` or `Busy`, all without consequences for the refresh token."""
    if owner.info.revoked_at is not None:
        raise Unauthenticated(_REFUSED)
    if owner.is_disabled:
        raise Unauthenticated(f"{owner.info.principal} is disabled; ask an administrator")
    if owner.external is not None and not tokens.is_confirmed(owner.confirmed_at, now):
        raise Unavailable(
            "the identity provider has not confirmed this user for an hour; try again, or sign in again"
        )
    if kept.count_issued(tx, found.family, now - _WINDOW) >= _MAX_ISSUED:
        raise Busy(
            "this program refreshes its token too often; try again in an hour", _WINDOW.total_seconds()
        )


def _rotate(tx: Transaction, found: kept.RefreshToken, owner: TokenRecord, now: datetime) -> ProgramTokens:
    for lost in kept.unused(tx, found.family):
        if lost.key != found.key:  # not the token of the lost response
            access_tokens.revoke_alone(tx, lost.token, now)
    kept.set_used(tx, found, now, now + RETRY)
    access_tokens.shorten(tx, found.token, now + OVERLAP)
    return _issue(tx, owner.principal, owner.external, found, now)


def _issue(
    tx: Transaction, principal: int, external: int | None, like: kept.RefreshToken, now: datetime
) -> ProgramTokens:
    user = principals.by_key(tx, principal)
    name = user.info.name
    set_actor(tx, Identity(name, principal=principal))
    label = tokens.free_name(tx, user, f"device-{like.family}")
    until = min(filter(None, (like.token_until, now + ACCESS_LIFETIME)))
    issued = tokens.issue(tx, user, label, None, until, name, external=external)
    secret = tokens.new_secret(_KIND)
    following = like._replace(key=tokens.hash_token(secret), token=issued.id, expires_at=now + LIFETIME)
    kept.insert(tx, following, now)
    access = CreatedToken(id=issued.id, principal=name, name=label, secret=issued.secret, expires_at=until)
    return ProgramTokens(access, secret)


def _end(token: kept.RefreshToken) -> datetime:
    return min(filter(None, (token.expires_at, token.token_until)))
