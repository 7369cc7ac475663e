"""Tokens in the catalog, by the hash of the secret, so that a stolen database contains no usable token."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, bindparam, delete, or_, update
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.core.access.grants import Limit
from adaptry.core.access.resources import Resource
from adaptry.core.identity import Identity
from adaptry.registry.access import TokenInfo
from adaptry.storage.catalog import refresh_tokens
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.encoding import decode_list, encode_list
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.principals import enabled_grants
from adaptry.storage.catalog.rows import DeviceSignInRow, ExternalUserRow, PrincipalRow, TokenRow
from adaptry.storage.catalog.version_info import Columns, table_of

_TOKENS, _PRINCIPALS, _EXTERNAL = table_of(TokenRow), table_of(PrincipalRow), table_of(ExternalUserRow)
_EVERY = (
    select_columns(
        *_TOKENS.c,
        _PRINCIPALS.c.name.label("principal"),
        _PRINCIPALS.c.disabled_at.label("principal_disabled_at"),
        _EXTERNAL.c.confirmed_at,
    )
    .join(_PRINCIPALS, _PRINCIPALS.c.id == _TOKENS.c.principal_id)
    .join(_EXTERNAL, _EXTERNAL.c.id == _TOKENS.c.external_id, isouter=True)
    .order_by(_TOKENS.c.id)
)
_FOUND = _EVERY.where(_TOKENS.c.secret_sha256 == bindparam("secret"))


class TokenRecord(NamedTuple):
    """A token, its principal's number, whether the principal is disabled, and the token's limits.

    `external` is the external user by whom the token lives, whom the provider last knew at `confirmed_at`.
    """

    info: TokenInfo
    principal: int
    is_disabled: bool
    limit: Limit | None
    external: int | None = None
    confirmed_at: datetime | None = None


class NewToken(NamedTuple):
    """A token to store. `name` must be free among the principal's."""

    secret_sha256: str
    last_four: str
    kind: str
    principal: int
    name: str
    limit: Limit | None
    expires_at: datetime | None
    external: int | None = None


def insert(tx: Transaction, token: NewToken, now: datetime, by: str) -> int:
    """Stores a token, and returns its id."""
    permissions, resources = _columns(token.limit)
    row = TokenRow(
        secret_sha256=token.secret_sha256,
        last_four=token.last_four,
        kind=token.kind,
        principal_id=token.principal,
        name=token.name,
        permissions=permissions,
        resources=resources,
        created_at=now,
        created_by=by,
        expires_at=token.expires_at,
        external_id=token.external,
    )
    tx.add(row)
    tx.flush()
    owner = tx.get_one(PrincipalRow, token.principal)
    about = {"token": row.id, "name": token.name, "expires_at": token.expires_at}
    limits = {"permissions": permissions, "resources": resources}
    target = AuditTarget(owner.name, owner.namespace)
    record(tx, "token.create", target, now, after={**about, **limits}, by=by)
    return row.id or 0


def find(tx: Reads, secret_sha256: str) -> TokenRecord | None:
    rows = run_select(tx, _FOUND, {"secret": secret_sha256})
    return _record(rows[0]) if rows else None


def by_id(tx: Transaction, id: int) -> TokenRecord | None:
    return next(_records(tx, _TOKENS.c.id == id), None)


def every(tx: Transaction) -> tuple[TokenInfo, ...]:
    """All tokens ever created, oldest first."""
    return tuple(record.info for record in _records(tx))


def page(
    tx: Transaction,
    which: Sequence[ColumnElement[bool]],
    after: int | None,
    limit: int,
    *,
    reverse: bool = False,
) -> tuple[TokenInfo, ...]:
    """A page of at most `limit` tokens after the one with that number, oldest first."""
    key = _TOKENS.c.id
    later = [] if after is None else [key < after if reverse else key > after]
    query = _EVERY.where(*which, *later).order_by(None).order_by(key.desc() if reverse else key)
    return tuple(_record(row).info for row in run_select(tx, query.limit(limit), {}))


def of_principals(name: str, namespaces: Collection[str]) -> ColumnElement[bool]:
    """The condition of tokens of one principal, and of the service accounts of some namespaces."""
    return or_(_PRINCIPALS.c.name == name, _PRINCIPALS.c.namespace.in_(namespaces))


def is_not_revoked() -> ColumnElement[bool]:
    """The condition that a token is not revoked."""
    is_valid: ColumnElement[bool] = _TOKENS.c.revoked_at.is_(None)
    return is_valid


def names(tx: Transaction, principal: int) -> frozenset[str]:
    """The names of all the tokens that a principal has or had."""
    return frozenset(tx.exec(select(TokenRow.name).where(TokenRow.principal_id == principal)))


def revoke(tx: Transaction, id: int, at: datetime) -> bool:
    """Revokes a token, and every other token of a program that refreshes it; returns whether it existed and
    was valid. Programs that wait, although the token's user approved them, get nothing.
    """
    others = refresh_tokens.remove_family_of(tx, id) - {id}
    is_revoked = revoke_alone(tx, id, at)
    for other in sorted(others):
        revoke_alone(tx, other, at)
    if is_revoked or others:
        _end_approvals(tx, id)
    return is_revoked


def _end_approvals(tx: Transaction, id: int) -> None:
    """A stolen token may have been used to approve a program; tokens of sessions approve none."""
    found = by_id(tx, id)
    if found is not None and found.info.kind != "ses":
        tx.execute(delete(DeviceSignInRow).where(col(DeviceSignInRow.principal_id) == found.principal))


def revoke_alone(tx: Transaction, id: int, at: datetime) -> bool:
    """Revokes a token that a program has replaced; the program keeps its others."""
    found = by_id(tx, id)
    if found is None or found.info.revoked_at is not None:
        return False
    tx.execute(update(TokenRow).where(col(TokenRow.id) == id).values(revoked_at=at))
    owner = tx.get_one(PrincipalRow, found.principal)
    was = {"token": id, "name": found.info.name, "expires_at": found.info.expires_at}
    record(tx, "token.revoke", AuditTarget(owner.name, owner.namespace), at, before=was)
    return True


def shorten(tx: Transaction, id: int, until: datetime) -> None:
    """Makes a token expire at that time, unless it expires earlier anyway."""
    is_later = or_(col(TokenRow.expires_at).is_(None), col(TokenRow.expires_at) > until)
    tx.execute(update(TokenRow).where(col(TokenRow.id) == id, is_later).values(expires_at=until))


def delete_expired(tx: Transaction, principal: int, kind: str, before: datetime) -> None:
    """Deletes a principal's tokens of a kind that expired before that time."""
    tx.execute(
        delete(TokenRow).where(
            col(TokenRow.principal_id) == principal,
            col(TokenRow.kind) == kind,
            col(TokenRow.expires_at) < before,
        )
    )


def revoke_of_external(tx: Transaction, external: int, at: datetime) -> None:
    """Revokes every token that depends on an external user."""
    ids = tx.exec(
        select(TokenRow.id).where(TokenRow.external_id == external, col(TokenRow.revoked_at).is_(None))
    )
    for id in ids.all():
        revoke(tx, id or 0, at)


def record_use(tx: Transaction, used: Mapping[int, datetime]) -> None:
    """Stores when each token was last used; times earlier than the stored one change nothing."""
    for id, at in used.items():
        is_older = or_(col(TokenRow.last_used_at).is_(None), col(TokenRow.last_used_at) < at)
        tx.execute(update(TokenRow).where(col(TokenRow.id) == id, is_older).values(last_used_at=at))


def identity_of(tx: Reads, token: TokenRecord) -> Identity:
    """The identity of a token of a principal that is not disabled."""
    grants = enabled_grants(tx, token.principal)
    return Identity(token.info.principal, grants, token.limit, token.principal, token.info.id, token.external)


def is_revoked(tx: Transaction, identity: Identity) -> bool:
    """Whether the principal is disabled, or every token with these limits was revoked. Expired tokens do not
    count as revoked.
    """
    if identity.principal is None:  # users of the registry's folder need no token
        return False
    if tx.get_one(PrincipalRow, identity.principal).disabled_at is not None:
        return True
    permissions, resources = _columns(identity.limit)
    tokens = select(TokenRow.revoked_at).where(
        TokenRow.principal_id == identity.principal,
        col(TokenRow.permissions).is_not_distinct_from(permissions),
        col(TokenRow.resources).is_not_distinct_from(resources),
    )
    found = tx.exec(tokens).all()
    return bool(found) and None not in found


def _columns(limit: Limit | None) -> tuple[str | None, str | None]:
    """The columns that store a token's limits."""
    if limit is None:
        return None, None
    permissions = None if limit.permissions is None else encode_list(limit.permissions)
    resources = None if limit.resources is None else encode_list(map(str, limit.resources))
    return permissions, resources


def _limit(row: Columns) -> Limit | None:
    if row.permissions is None and row.resources is None:
        return None
    return Limit(
        None if row.permissions is None else decode_list(row.permissions),
        None if row.resources is None else tuple(map(Resource.parse, decode_list(row.resources))),
    )


def _records(tx: Transaction, *which: ColumnElement[bool]) -> Iterator[TokenRecord]:
    return map(_record, run_select(tx, _EVERY.where(*which), {}))


def _record(row: Columns) -> TokenRecord:
    info = TokenInfo(
        id=row.id,
        kind=row.kind,
        principal=row.principal,
        name=row.name,
        permissions=None if row.permissions is None else decode_list(row.permissions),
        resources=None if row.resources is None else decode_list(row.resources),
        last_four=row.last_four,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
    return TokenRecord(
        info,
        row.principal_id,
        row.principal_disabled_at is not None,
        _limit(row),
        row.external_id,
        row.confirmed_at,
    )
