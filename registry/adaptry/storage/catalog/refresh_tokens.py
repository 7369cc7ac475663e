"""Refresh tokens in the catalog, by the hash of the secret."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, func, update
from sqlmodel import col, select

from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import RefreshTokenRow


class RefreshToken(NamedTuple):
    """A refresh token; `token` is the access token that was issued with it."""

    key: str
    family: str
    client_id: str
    token: int
    expires_at: datetime
    used_at: datetime | None
    retry_until: datetime | None
    token_until: datetime | None

    def may_be_used(self, now: datetime) -> bool:
        """Whether the token may be exchanged: for the first time, or once more because the answer may have
        been lost.
        """
        return self.used_at is None or (self.retry_until is not None and now < self.retry_until)


def insert(tx: Transaction, token: RefreshToken, now: datetime) -> None:
    """Stores a refresh token; those that have expired are deleted."""
    tx.execute(delete(RefreshTokenRow).where(col(RefreshTokenRow.expires_at) <= now))
    tx.add(
        RefreshTokenRow(
            secret_sha256=token.key,
            family=token.family,
            client_id=token.client_id,
            token_id=token.token,
            created_at=now,
            expires_at=token.expires_at,
            token_until=token.token_until,
        )
    )
    tx.flush()


def find(tx: Transaction, secret_sha256: str) -> RefreshToken | None:
    row = tx.exec(select(RefreshTokenRow).where(RefreshTokenRow.secret_sha256 == secret_sha256)).first()
    return None if row is None else _token(row)


def count_issued(tx: Transaction, family: str, since: datetime) -> int:
    """The number of tokens of a family that were issued since that time."""
    query = select(func.count()).where(
        RefreshTokenRow.family == family, col(RefreshTokenRow.created_at) > since
    )
    return int(tx.execute(query).scalar_one())


def unused(tx: Transaction, family: str) -> tuple[RefreshToken, ...]:
    query = select(RefreshTokenRow).where(
        RefreshTokenRow.family == family, col(RefreshTokenRow.used_at).is_(None)
    )
    return tuple(map(_token, tx.exec(query)))


def set_used(tx: Transaction, token: RefreshToken, now: datetime, retry_until: datetime) -> None:
    """The token was exchanged, so every other token of its family has ended."""
    is_other = col(RefreshTokenRow.secret_sha256) != token.key
    in_family = col(RefreshTokenRow.family) == token.family
    tx.execute(update(RefreshTokenRow).where(in_family, is_other).values(retry_until=None))
    unused_others = (in_family, is_other, col(RefreshTokenRow.used_at).is_(None))
    tx.execute(update(RefreshTokenRow).where(*unused_others).values(used_at=now))
    if token.used_at is None:
        tx.execute(
            update(RefreshTokenRow)
            .where(col(RefreshTokenRow.secret_sha256) == token.key)
            .values(used_at=now, retry_until=retry_until)
        )


def remove_family_of(tx: Transaction, token: int) -> frozenset[int]:
    """Deletes the refresh tokens of the program that has this access token; returns its access tokens."""
    family = select(RefreshTokenRow.family).where(RefreshTokenRow.token_id == token)
    in_family = col(RefreshTokenRow.family).in_(family)
    tokens = frozenset(tx.exec(select(RefreshTokenRow.token_id).where(in_family)))
    if tokens:
        tx.execute(delete(RefreshTokenRow).where(in_family))
    return tokens


def _token(row: RefreshTokenRow) -> RefreshToken:
    return RefreshToken(
        row.secret_sha256,
        row.family,
        row.client_id,
        row.token_id,
        row.expires_at,
        row.used_at,
        row.retry_until,
        row.token_until,
    )
