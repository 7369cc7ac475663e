"""Rows of the audit log, and of the Merkle tree over it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, Text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, LONG, Moment, Row


class AuditEntryRow(Row, table=True):
    """An act; written in the transaction of the change. Only `seq` and `leaf` are set later, once: its place
    in the log, and the hash of its line.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_at", "at", "id"),
        Index("ix_audit_entries_actor", "actor", "at", "id"),
        Index("ix_audit_entries_action", "action", "at", "id"),
        Index("ix_audit_entries_resource", "resource", "at", "id"),
        Index("ix_audit_entries_namespace", "namespace", "at", "id"),
        Index("ix_audit_entries_seq", "seq", unique=True),
        KEYS_GIVEN_ONCE,
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=LONG)
    at: datetime = Field(sa_type=Moment)
    action: str
    actor: str
    namespace: str | None = None
    resource: str
    selector: str | None = None
    outcome: str
    detail: str = Field(sa_type=Text)
    seq: int | None = Field(default=None, sa_type=LONG)
    leaf: str | None = None


class AuditStateRow(Row, table=True):
    """The one row about the log: its name, how much is sealed, the peaks of its tree, the public key, and
    which process seals.
    """

    __tablename__ = "audit_state"
    id: int = Field(primary_key=True)
    origin: str
    size: int = Field(sa_type=LONG)
    peaks: str = Field(sa_type=Text)
    key: str | None = None
    holder: str | None = None
    held_until: datetime | None = Field(default=None, sa_type=Moment)


class AuditCheckpointRow(Row, table=True):
    """A signed statement of the log's size and root."""

    __tablename__ = "audit_checkpoints"
    size: int = Field(primary_key=True, sa_type=LONG, sa_column_kwargs={"autoincrement": False})
    note: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=Moment)


class AuditSubtreeRow(Row, table=True):
    """The hash of a complete subtree of 256 or 65,536 leaves, so that proofs read few rows."""

    __tablename__ = "audit_subtrees"
    level: int = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=LONG)
    hash: str
