"""Signs in users of an identity provider: their sessions, their groups, and the end of both.

A session is a token of the kind `ses`, whose text is never handed out: the browser's cookie has its hash.
Like all tokens made with it, it is valid while the provider confirms the user at least once an hour, for half
a day at most. The provider's answers are verified before (`adaptry_api.sign_in`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from adaptry.core.errors import PermissionDenied
from adaptry.core.identity import Identity, is_reserved
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.access import TokenInfo
from adaptry.storage import tokens
from adaptry.storage.catalog import principals, sign_ins
from adaptry.storage.catalog import tokens as kept
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record, set_actor
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.principals import PrincipalRecord
from adaptry.storage.catalog.sign_ins import ExternalUser

KIND = "ses"
LIFETIME = timedelta(hours=12)
CONFIRM_AFTER = timedelta(minutes=20)
"""Age at which a confirmation is renewed: three attempts before sessions stop working."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,95}")
_RETENTION = timedelta(days=1)
_UNKNOWN_THERE = "the identity provider no longer confirms the user"
_IN_NO_GROUP = "the user is in no mapped group of the identity provider"


@dataclass(frozen=True, slots=True)
class ConfirmedUser:
    """A user as described by a provider's verified response; `names` are proposals for the name here, best
    first. `refresh_token` is sealed.
    """

    issuer: str
    subject: str
    names: tuple[str, ...]
    groups: frozenset[str]
    refresh_token: str | None = None


def sign_in(catalog: Catalog, user: ConfirmedUser, now: datetime | None = None) -> str:
    """The hash of the token of a new session. Creates the user at their first sign-in.

    Raises `PermissionDenied` if the user is in no mapped group and was not linked, has the name of another
    user here, or is disabled. A user who has left all mapped groups also loses earlier sessions and groups.
    """
    now = now or datetime.now(UTC)
    with catalog.write() as tx:
        known = sign_ins.find_external(tx, user.issuer, user.subject)
        if _is_admitted(tx, known, user):
            return _begin_session(tx, user, now)
        if known is not None:
            _end(tx, known, now, _IN_NO_GROUP)
    raise PermissionDenied(
        "none of your groups may sign in here; ask an administrator to map one (`adaptry sso map`)"
    )


def _begin_session(tx: Transaction, user: ConfirmedUser, now: datetime) -> str:
    """Begins a session of a confirmed user. Raises `PermissionDenied`."""
    external, principal = _admit(tx, user, now)
    sign_ins.confirm(tx, external, user.refresh_token, now)
    set_actor(tx, Identity(principal.info.name, principal=principal.key))
    _join_groups(tx, principal, user.groups, now)
    kept.delete_expired(tx, principal.key, KIND, now - _RETENTION)
    label, until = f"browser-{secrets.token_hex(6)}", now + LIFETIME
    issued = tokens.issue(
        tx, principal, label, None, until, principal.info.name, kind=KIND, external=external.key
    )
    facts = {"issuer": user.issuer, "subject": user.subject}
    record(tx, "session.start", AuditTarget(principal.info.name), now, after=facts)
    return tokens.hash_token(issued.secret)


def sign_out(catalog: Catalog, token_sha256: str) -> None:
    """Ends the session whose token has this hash. A token that was used to begin a session stays valid.

    The token expires rather than being revoked: jobs, schedules and webhooks of the session go on, as they do
    when a session expires by itself.
    """
    now = datetime.now(UTC)
    with catalog.write() as tx:
        found = kept.find(tx, token_sha256)
        if found is None or found.info.kind != KIND or not _is_valid(found.info, now):
            return
        set_actor(tx, Identity(found.info.principal, principal=found.principal))
        kept.shorten(tx, found.info.id, now)
        record(tx, "session.end", AuditTarget(found.info.principal), now, after={"because": "signed out"})


def _is_valid(token: TokenInfo, now: datetime) -> bool:
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)


def claim_due(catalog: Catalog, issuer: str, now: datetime | None = None) -> ExternalUser | None:
    """Claims the next user to confirm with that provider; no other caller gets the user for two minutes."""
    now = now or datetime.now(UTC)
    with catalog.write() as tx:
        return sign_ins.claim_due(tx, issuer, now - CONFIRM_AFTER, now)


def confirm(catalog: Catalog, external: ExternalUser, user: ConfirmedUser) -> bool:
    """Extends the sessions of a user whom the provider has confirmed, and updates their groups. Sign-ins of a
    user who has left all mapped groups end; returns whether they continue.
    """
    now = datetime.now(UTC)
    with catalog.write() as tx:
        if not sign_ins.is_current(tx, external):
            return True
        if not _is_admitted(tx, external, user):
            _end(tx, external, now, _IN_NO_GROUP)
            return False
        sign_ins.confirm(tx, external, user.refresh_token, now)
        _join_groups(tx, principals.by_key(tx, external.principal), user.groups, now)
    return True


def store_refresh_token(catalog: Catalog, external: ExternalUser, refresh_token: str) -> None:
    """Stores the sealed token for the next confirmation."""
    with catalog.write() as tx:
        if sign_ins.is_current(tx, external):
            sign_ins.set_refresh_token(tx, external, refresh_token)


def end(catalog: Catalog, external: ExternalUser) -> None:
    """Ends all sessions of a user whom the provider refused to confirm, revokes the tokens created in them,
    and removes the user from the groups that the provider's claims gave.
    """
    now = datetime.now(UTC)
    with catalog.write() as tx:
        if sign_ins.is_current(tx, external):
            _end(tx, external, now, _UNKNOWN_THERE)


def _end(tx: Transaction, external: ExternalUser, now: datetime, because: str) -> None:
    sign_ins.end(tx, external, now)
    principal = principals.by_key(tx, external.principal)
    _join_groups(tx, principal, (), now)
    record(tx, "session.end", AuditTarget(principal.info.name), now, after={"because": because})


def _is_admitted(tx: Transaction, known: ExternalUser | None, user: ConfirmedUser) -> bool:
    """Whether a mapped group or an administrator's link admits the user."""
    if any(claim in user.groups for claim, _ in sign_ins.mapped_groups(tx)):
        return True
    return known is not None and is_linked(known, principals.by_key(tx, known.principal))


def is_linked(external: ExternalUser, principal: PrincipalRecord) -> bool:
    """Whether an administrator linked the two. The first sign-in creates both in the user's own name."""
    name = principal.info.name
    return external.created_by != name or principal.info.created_by != name


def _admit(tx: Transaction, user: ConfirmedUser, now: datetime) -> tuple[ExternalUser, PrincipalRecord]:
    """The user of the registry for a user of the provider. Raises `PermissionDenied`."""
    external = sign_ins.find_external(tx, user.issuer, user.subject)
    if external is not None:
        principal = principals.by_key(tx, external.principal)
        if principal.info.disabled_at is not None:
            raise PermissionDenied(f"{principal.info.name} is disabled; ask an administrator")
        return external, principal
    name = next((one for one in user.names if _NAME.fullmatch(one) and not is_reserved(one)), None)
    if name is None:
        raise PermissionDenied(
            "the identity provider gave no name for you that is valid as a user name here; ask an"
            " administrator"
        )
    if (taken := principals.find_ignoring_case(tx, name)) is not None:
        # With some providers, users choose such names themselves, so a name proves nothing.
        raise PermissionDenied(
            f"there is a user {taken.info.name} already; if that is you, ask an administrator to run:"
            f" adaptry sso link {taken.info.name} --issuer {user.issuer} --subject {user.subject}"
        )
    principal = principals.insert(tx, "user", name, None, now, name)
    return sign_ins.insert_external(tx, user.issuer, user.subject, principal.key, now, name), principal


def _join_groups(
    tx: Transaction, principal: PrincipalRecord, claimed: Collection[str], now: datetime
) -> None:
    """Makes the user a member of the groups that their claims are mapped to, and of no other mapped group."""
    mapped = sign_ins.mapped_groups(tx)
    wanted = {group for claim, group in mapped if claim in claimed}
    for group in sorted({group for _, group in mapped}):
        is_member = group in wanted
        if principals.set_membership(tx, group, principal, is_member):
            action = "group.add" if is_member else "group.remove"
            facts = {"principal": principal.info.name}
            record(
                tx,
                action,
                AuditTarget(group.name),
                now,
                before=None if is_member else facts,
                after=facts if is_member else None,
            )
