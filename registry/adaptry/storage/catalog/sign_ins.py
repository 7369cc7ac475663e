"""Users and groups of an identity provider in the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import or_, update
from sqlmodel import col, select
from sqlmodel.sql.expression import Select

from adaptry.registry.records import Page
from adaptry.registry.sso import ExternalUserInfo, ProviderGroupInfo
from adaptry.storage.catalog import cursors, tokens
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.principals import GroupRecord
from adaptry.storage.catalog.rows import (
    ExternalUserRow,
    GroupRow,
    PrincipalRow,
    ProviderGroupRow,
)

_CLAIM = timedelta(minutes=2)
_USERS = "external users"


class ExternalUser(NamedTuple):
    """A user of an identity provider: numbers here, the sealed refresh token, and who linked it to its user
    here.
    """

    key: int
    issuer: str
    subject: str
    principal: int
    refresh_token: str | None
    created_by: str


def find_external(tx: Transaction, issuer: str, subject: str) -> ExternalUser | None:
    row = tx.exec(
        select(ExternalUserRow).where(ExternalUserRow.issuer == issuer, ExternalUserRow.subject == subject)
    ).first()
    return _external(row) if row else None


def insert_external(
    tx: Transaction, issuer: str, subject: str, principal: int, now: datetime, by: str
) -> ExternalUser:
    row = ExternalUserRow(
        issuer=issuer, subject=subject, principal_id=principal, created_at=now, created_by=by
    )
    tx.add(row)
    tx.flush()
    return _external(row)


def set_creator(tx: Transaction, user: ExternalUser, now: datetime, by: str) -> None:
    """Records that an administrator linked a user who has already signed in."""
    values = {"created_at": now, "created_by": by}
    tx.execute(update(ExternalUserRow).where(col(ExternalUserRow.id) == user.key).values(values))


def confirm(tx: Transaction, user: ExternalUser, refresh_token: str | None, now: datetime) -> None:
    """Records a confirmation by the provider; a `refresh_token` replaces the stored one."""
    values: dict[str, object] = {"confirmed_at": now, "ended_at": None, "claimed_until": None}
    if refresh_token is not None:
        values["refresh_token"] = refresh_token
    tx.execute(update(ExternalUserRow).where(col(ExternalUserRow.id) == user.key).values(values))


def is_current(tx: Transaction, user: ExternalUser) -> bool:
    """Whether the user has not signed in again, or been asked about, since `user` was read."""
    now = find_external(tx, user.issuer, user.subject)
    return now is not None and now.refresh_token == user.refresh_token


def set_refresh_token(tx: Transaction, user: ExternalUser, refresh_token: str) -> None:
    tx.execute(
        update(ExternalUserRow).where(col(ExternalUserRow.id) == user.key).values(refresh_token=refresh_token)
    )


def end(tx: Transaction, user: ExternalUser, now: datetime) -> None:
    """Revokes every token, and so ends every session, of a user whom the provider no longer confirms."""
    tx.execute(
        update(ExternalUserRow)
        .where(col(ExternalUserRow.id) == user.key)
        .values(confirmed_at=None, ended_at=now, claimed_until=None, refresh_token=None)
    )
    tokens.revoke_of_external(tx, user.key, now)


def claim_due(tx: Transaction, issuer: str, before: datetime, now: datetime) -> ExternalUser | None:
    """Claims a user of that provider who was last confirmed before that time and has a refresh token, for
    confirmation now. Those whose last confirmation failed come last, so that they keep no others waiting.
    """
    claimed_until = col(ExternalUserRow.claimed_until)
    row = tx.exec(
        select(ExternalUserRow)
        .where(
            ExternalUserRow.issuer == issuer,
            col(ExternalUserRow.refresh_token).is_not(None),
            col(ExternalUserRow.confirmed_at) < before,
            or_(claimed_until.is_(None), claimed_until < now),
        )
        .order_by(claimed_until.is_not(None), claimed_until, col(ExternalUserRow.confirmed_at))
        .limit(1)
    ).first()
    if row is None:
        return None
    row.claimed_until = now + _CLAIM
    tx.flush()
    return _external(row)


def provider_groups(tx: Transaction) -> tuple[ProviderGroupInfo, ...]:
    """All mapped groups, by claim."""
    found = tx.exec(
        select(ProviderGroupRow, GroupRow.name)
        .join(GroupRow, col(GroupRow.id) == col(ProviderGroupRow.group_id))
        .order_by(ProviderGroupRow.claim)
    )
    return tuple(
        ProviderGroupInfo(claim=row.claim, group=name, set_at=row.set_at, set_by=row.set_by)
        for row, name in found
    )


def mapped_groups(tx: Transaction) -> Sequence[tuple[str, GroupRecord]]:
    """Each mapped claim, and the group that its members join."""
    found = tx.exec(
        select(ProviderGroupRow.claim, GroupRow.id, GroupRow.name)
        .join(GroupRow, col(GroupRow.id) == col(ProviderGroupRow.group_id))
        .order_by(ProviderGroupRow.claim)
    )
    return [(claim, GroupRecord(key or 0, name)) for claim, key, name in found]


def map_group(tx: Transaction, claim: str, group: GroupRecord, now: datetime, by: str) -> None:
    tx.merge(ProviderGroupRow(claim=claim, group_id=group.key, set_at=now, set_by=by))
    tx.flush()


def unmap_group(tx: Transaction, claim: str) -> bool:
    """Removes the mapping of a group; returns whether there was one."""
    row = tx.get(ProviderGroupRow, claim)
    if row is None:
        return False
    tx.delete(row)
    tx.flush()
    return True


def external_users(tx: Transaction, cursor: str | None, limit: int) -> Page[ExternalUserInfo]:
    """A page of the external users, by the names that they have here. Raises `Invalid` for a bad cursor."""
    query = _users().order_by(PrincipalRow.name, col(ExternalUserRow.id)).limit(limit + 1)
    if cursor is not None:
        name, key = _parse_cursor(cursor)
        is_later = (col(PrincipalRow.name) == name) & (col(ExternalUserRow.id) > key)
        query = query.where((col(PrincipalRow.name) > name) | is_later)
    found = list(tx.exec(query))
    last = found[limit - 1] if len(found) > limit else None
    return Page[ExternalUserInfo](
        items=tuple(_user(row, name) for row, name in found[:limit]),
        next=cursors.encode(f"{last[0].id}:{last[1]}", _USERS) if last else None,
    )


def external_user(tx: Transaction, issuer: str, subject: str) -> ExternalUserInfo:
    """The external user with these claims, who is known."""
    is_theirs = (col(ExternalUserRow.issuer) == issuer) & (col(ExternalUserRow.subject) == subject)
    row, name = tx.exec(_users().where(is_theirs)).one()
    return _user(row, name)


def _users() -> Select[ExternalUserRow, str]:
    return select(ExternalUserRow, PrincipalRow.name).join(
        PrincipalRow, col(PrincipalRow.id) == col(ExternalUserRow.principal_id)
    )


def _user(row: ExternalUserRow, name: str) -> ExternalUserInfo:
    return ExternalUserInfo(
        user=name,
        issuer=row.issuer,
        subject=row.subject,
        confirmed_at=row.confirmed_at,
        ended_at=row.ended_at,
    )


def _parse_cursor(cursor: str) -> tuple[str, int]:
    key, colon, name = cursors.decode(cursor, _USERS).partition(":")
    if not (colon and key.isascii() and key.isdigit() and int(key) <= cursors.INTEGER):
        raise cursors.foreign()
    return name, int(key)


def _external(row: ExternalUserRow) -> ExternalUser:
    return ExternalUser(
        row.id or 0, row.issuer, row.subject, row.principal_id, row.refresh_token, row.created_by
    )
