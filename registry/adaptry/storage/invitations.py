"""Invitations: codes that a user exchanges once, within hours, for a first token.

A code is spelled as a token of the kind `inv`, so that whatever finds tokens in a leak finds it too. Only its
hash is stored. Whether the caller may invite is not checked here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adaptry.core.errors import Invalid, Unauthenticated
from adaptry.core.identity import Identity
from adaptry.registry.access import CreatedToken, InvitationInfo
from adaptry.storage import tokens
from adaptry.storage.catalog import invitations as kept
from adaptry.storage.catalog import principals
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record, set_actor
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.principals import PrincipalRecord

KIND = "inv"
_TOKEN_DAYS = 90


def invite(
    tx: Transaction, user: PrincipalRecord, expires_at: datetime, now: datetime, by: str
) -> InvitationInfo:
    """Creates a code for a user, whose earlier codes end. Raises `Invalid`, and `Conflict` if the user is
    disabled.
    """
    if user.info.kind != "user":
        raise Invalid(
            f"{user.info.name} is a {user.info.kind} and never logs in; make it a token instead"
            f" (`adaptry token create NAME --for {user.info.name}`)"
        )
    tokens.require_able(user)
    code = tokens.new_secret(KIND)
    kept.end_all(tx, user.key, now)
    kept.insert(tx, tokens.hash_token(code), user.key, now, by, expires_at)
    return InvitationInfo(principal=user.info.name, code=code, expires_at=expires_at)


def accept(catalog: Catalog, code: str, name: str, now: datetime | None = None) -> CreatedToken:
    """Exchanges a code for a token of its user, valid for 90 days. If several callers try, only one succeeds.
    Raises `Unauthenticated` for a code that is unknown, used, replaced or expired, with the same message in
    all cases.
    """
    now = now or datetime.now(UTC)
    with catalog.write() as tx:
        key = kept.take(tx, tokens.hash_token(code), now)
        user = principals.by_key(tx, key) if key is not None else None
        if user is None or user.info.disabled_at is not None:
            raise Unauthenticated(
                "that invitation is unknown, used or expired; ask an administrator for a new one (`adaptry"
                " user invite NAME`)"
            )
        set_actor(tx, Identity(user.info.name, principal=user.key))
        record(tx, "invitation.accept", AuditTarget(user.info.name), now)
        until = now + timedelta(days=_TOKEN_DAYS)
        free = tokens.free_name(tx, user, name)
        issued = tokens.issue(tx, user, free, None, until, user.info.name)
    return CreatedToken(
        id=issued.id, principal=user.info.name, name=issued.name, secret=issued.secret, expires_at=until
    )
