"""Tokens in the catalog: by the hash of the secret, so that a stolen database opens nothing."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from pydantic import BaseModel, ConfigDict
from sqlalchemy import update
from sqlmodel import col, select

from adaptry.core.identity import LOCAL, Identity, Role
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.encoding import decode_list, encode_list
from adaptry.storage.catalog.rows import TokenRow


class TokenInfo(BaseModel):
    """A token as listed: who may do what with it, and its last four characters to tell it by."""

    model_config = ConfigDict(frozen=True)

    id: int
    kind: str
    name: str
    role: Role
    namespaces: tuple[str, ...]
    last_four: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


def insert(tx: Transaction, secret_sha256: str, info: TokenInfo) -> None:
    """Keeps a token; `info.id` is ignored."""
    tx.add(
        TokenRow(
            secret_sha256=secret_sha256,
            last_four=info.last_four,
            kind=info.kind,
            name=info.name,
            role=info.role,
            namespaces=encode_list(info.namespaces),
            created_at=info.created_at,
            expires_at=info.expires_at,
        )
    )


def find(tx: Transaction, secret_sha256: str) -> TokenInfo | None:
    row = tx.exec(select(TokenRow).where(TokenRow.secret_sha256 == secret_sha256)).first()
    return _info(row) if row else None


def every(tx: Transaction) -> tuple[TokenInfo, ...]:
    """All tokens ever made, oldest first."""
    return tuple(_info(row) for row in tx.exec(select(TokenRow).order_by(col(TokenRow.id))))


def revoke(tx: Transaction, id: int, at: datetime) -> bool:
    """Whether there was such a token that was not revoked before."""
    tokens = select(TokenRow.id).where(TokenRow.id == id, col(TokenRow.revoked_at).is_(None))
    was_valid = tx.exec(tokens).first() is not None
    if was_valid:
        tx.execute(update(TokenRow).where(col(TokenRow.id) == id).values(revoked_at=at))
    return was_valid


def is_revoked(tx: Transaction, identity: Identity) -> bool:
    """Whether somebody has these rights only by revoked tokens. An expired one was not taken back."""
    if identity == LOCAL:  # who works in the registry's folder needs no token
        return False
    tokens = select(TokenRow.revoked_at).where(
        TokenRow.name == identity.name,
        TokenRow.role == identity.role,
        TokenRow.namespaces == encode_list(identity.namespaces),
    )
    found = tx.exec(tokens).all()
    return bool(found) and None not in found


def _info(row: TokenRow) -> TokenInfo:
    return TokenInfo(
        id=row.id or 0,
        kind=row.kind,
        name=row.name,
        role=cast(Role, row.role),
        namespaces=decode_list(row.namespaces),
        last_four=row.last_four,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
