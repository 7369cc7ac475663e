"""Device sign-ins (RFC 8628): a program gets a token after its user approved it in a browser.

The program waits with a long secret code, whose hash is stored. The user types a short code, which is useless
without being signed in. A token is issued once, to the waiting program.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from adaptry.core.errors import Busy, NotFound, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.storage import refresh_tokens, sign_ins
from adaptry.storage.catalog import device_sign_ins as waiting
from adaptry.storage.catalog import principals
from adaptry.storage.catalog import tokens as kept
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.refresh_tokens import ProgramTokens

LIFETIME = timedelta(minutes=15)
INTERVAL = 5
"""Seconds between two questions of a program; one second less is tolerated."""
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, so no words; RFC 8628 §6.1
_MAX_PENDING = 10_000
"""Programs that wait at once."""
Waiting = Literal["authorization_pending", "slow_down", "access_denied", "expired_token"]


class DeviceCodes(NamedTuple):
    """The code that the waiting program holds, and the code that its user types."""

    device_code: str
    user_code: str


def begin(catalog: Catalog, client_id: str, now: datetime | None = None) -> DeviceCodes:
    """New codes for the program `client_id`, for 15 minutes. Raises `Busy` while too many programs wait."""
    now = now or datetime.now(UTC)
    letters = "".join(secrets.choice(_LETTERS) for _ in range(8))
    codes = DeviceCodes(secrets.token_urlsafe(32), f"{letters[:4]}-{letters[4:]}")
    with catalog.write() as tx:
        if waiting.count_waiting(tx, now) >= _MAX_PENDING:
            raise Busy(
                "too many programs are waiting for their users to sign in; try again in a minute", 60.0
            )
        waiting.insert(tx, _hash(codes.device_code), codes.user_code, client_id, now + LIFETIME)
    return codes


def decide(
    catalog: Catalog, identity: Identity, user_code: str, is_approved: bool, now: datetime | None = None
) -> None:
    """Approves or denies the program that shows this code, for the signed-in user.

    Raises `NotFound` for an unknown code, `PermissionDenied` for a user who may not
    create their own tokens.
    """
    now = now or datetime.now(UTC)
    letters = "".join(one for one in user_code.upper() if one.isalpha())
    with catalog.write() as tx:
        own = kept.by_id(tx, identity.token) if identity.token is not None else None
        if own is None or own.limit is not None:
            raise PermissionDenied(
                f"{identity.name} is signed in with a limited token, which cannot create others"
            )
        found = waiting.find(tx, user_code=f"{letters[:4]}-{letters[4:]}")
        if found is None or found.expires_at <= now or found.decided_at is not None:
            raise NotFound(
                "no program is waiting with that code; compare it with the one that the program shows"
            )
        until = None if own.info.kind == sign_ins.KIND else own.info.expires_at
        approval = waiting.Approval(own.principal, own.external, until) if is_approved else None
        waiting.set_decided(tx, found, approval, now)


def poll(catalog: Catalog, device_code: str, now: datetime | None = None) -> ProgramTokens | Waiting:
    """The tokens, once, after the user's approval; before that, the program's next step."""
    now = now or datetime.now(UTC)
    with catalog.read() as tx:  # anyone may call this: write only for waiting programs
        if waiting.find(tx, device_sha256=_hash(device_code)) is None:
            return "expired_token"
    with catalog.write() as tx:
        found = waiting.find(tx, device_sha256=_hash(device_code))
        if found is None or found.expires_at <= now:
            return "expired_token"
        if found.decided_at is None:
            at, tolerated = found.polled_at, timedelta(seconds=INTERVAL - 1)
            waiting.set_polled(tx, found, now)
            return "slow_down" if at is not None and now - at < tolerated else "authorization_pending"
        waiting.remove(tx, found)
        if found.principal is None or principals.by_key(tx, found.principal).info.disabled_at is not None:
            return "access_denied"
        return refresh_tokens.begin(
            tx, found.principal, found.external, found.client_id, found.token_until, now
        )


def _hash(device_code: str) -> str:
    return hashlib.sha256(device_code.encode("utf-8", "surrogatepass")).hexdigest()
