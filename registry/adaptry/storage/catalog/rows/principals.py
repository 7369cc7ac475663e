"""Rows of principals: users, service accounts and workers, their groups, and their grants."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, Moment, Row


class PrincipalRow(Row, table=True):
    """A user, service account or worker. Disabled, never deleted, so that no name in a record is reused."""

    __tablename__ = "principals"
    __table_args__ = (Index("ix_principals_kind", "kind", "name"), KEYS_GIVEN_ONCE)
    id: int | None = Field(default=None, primary_key=True)
    kind: str
    name: str = Field(unique=True)
    namespace: str | None = Field(default=None, index=True)
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    disabled_at: datetime | None = Field(default=None, sa_type=Moment)


class GroupRow(Row, table=True):
    """A named set of principals, which grants can name."""

    __tablename__ = "principal_groups"
    __table_args__ = (KEYS_GIVEN_ONCE,)
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    created_at: datetime = Field(sa_type=Moment)
    created_by: str


class GroupMemberRow(Row, table=True):
    """The membership of a principal in a group."""

    __tablename__ = "group_members"
    group_id: int = Field(primary_key=True, foreign_key="principal_groups.id")
    principal_id: int = Field(primary_key=True, foreign_key="principals.id", index=True)


class GrantRow(Row, table=True):
    """A grant to a principal or a group, one of which is None. `conditions` is a list of texts."""

    __tablename__ = "grants"
    __table_args__ = (Index("ix_grants_namespace", "namespace"), KEYS_GIVEN_ONCE)
    id: int | None = Field(default=None, primary_key=True)
    principal_id: int | None = Field(default=None, foreign_key="principals.id", index=True)
    group_id: int | None = Field(default=None, foreign_key="principal_groups.id", index=True)
    namespace: str
    names: str
    permission: str
    conditions: str
    created_at: datetime = Field(sa_type=Moment)
    created_by: str


class AccountableRow(Row, table=True):
    """The user who is accountable for a namespace. It gives them no rights."""

    __tablename__ = "accountable_owners"
    namespace: str = Field(primary_key=True)
    principal_id: int = Field(foreign_key="principals.id")
    set_at: datetime = Field(sa_type=Moment)
    set_by: str


class TokenRow(Row, table=True):
    """A token of a principal, by the SHA-256 of its secret; the secret is not stored.

    `permissions` and `resources` are lists of texts, and None if the token does not limit them.
    `external_id` is the external user who created it after signing in, by which it lives: a column without a
    foreign key, which SQLite adds only to new tables.
    """

    __tablename__ = "tokens"
    __table_args__ = (UniqueConstraint("principal_id", "name"), KEYS_GIVEN_ONCE)
    id: int | None = Field(default=None, primary_key=True)
    secret_sha256: str = Field(unique=True)
    last_four: str
    kind: str
    principal_id: int = Field(foreign_key="principals.id")
    name: str
    permissions: str | None = None
    resources: str | None = None
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    expires_at: datetime | None = Field(default=None, sa_type=Moment)
    revoked_at: datetime | None = Field(default=None, sa_type=Moment)
    last_used_at: datetime | None = Field(default=None, sa_type=Moment)
    external_id: int | None = Field(default=None, index=True)


class InvitationRow(Row, table=True):
    """A code that a user exchanges once for a first token, by its SHA-256; the code is nowhere.

    `ended_at` is when it was used, or replaced by a newer one.
    """

    __tablename__ = "invitations"
    __table_args__ = (KEYS_GIVEN_ONCE,)
    id: int | None = Field(default=None, primary_key=True)
    code_sha256: str = Field(unique=True)
    principal_id: int = Field(foreign_key="principals.id", index=True)
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    expires_at: datetime = Field(sa_type=Moment)
    ended_at: datetime | None = Field(default=None, sa_type=Moment)
