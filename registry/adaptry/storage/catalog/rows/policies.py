"""Rows of policies of aliases, of approvals, and of the decisions that were made."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, Text
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import KEYS_GIVEN_ONCE, LONG, Moment, Row


class PolicyRow(Row, table=True):
    """A version of a policy, of a namespace or of an adapter; rows are only appended. Without a text, the
    policy was removed.
    """

    __tablename__ = "policies"
    __table_args__ = (
        Index("ix_policies_namespace", "namespace", "alias", "version", unique=True),
        Index("ix_policies_adapter", "adapter_id", "alias", "version", unique=True),
        KEYS_GIVEN_ONCE,
    )
    id: int | None = Field(default=None, primary_key=True)
    namespace: str | None = None
    adapter_id: int | None = Field(default=None, foreign_key="adapters.id")
    alias: str
    version: int
    text: str | None = Field(default=None, sa_type=Text)
    set_at: datetime = Field(sa_type=Moment)
    set_by: str


class ApprovalRow(Row, table=True):
    """A principal's approval of a move from the alias's generation (0: it never existed) to a version."""

    __tablename__ = "approvals"
    __table_args__ = (Index("ix_approvals_version", "version_id"),)
    adapter_id: int = Field(primary_key=True, foreign_key="adapters.id")
    alias: str = Field(primary_key=True)
    version_id: int = Field(primary_key=True, foreign_key="versions.id", ondelete="CASCADE")
    generation: int = Field(primary_key=True)
    approved_by: str = Field(primary_key=True)
    approved_at: datetime = Field(sa_type=Moment)
    withdrawn_at: datetime | None = Field(default=None, sa_type=Moment)


class PromotionRow(Row, table=True):
    """A move that conditions decided. `record` is the decision as canonical JSON, `record_digest` its digest,
    which the event of the move has too.
    """

    __tablename__ = "promotions"
    __table_args__ = (
        Index("ix_promotions_adapter", "adapter_id", "id"),
        Index("ix_promotions_alias", "adapter_id", "alias", "id"),
        KEYS_GIVEN_ONCE,
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=LONG)
    adapter_id: int = Field(foreign_key="adapters.id")
    alias: str
    generation: int
    record_digest: str
    record: str = Field(sa_type=Text)
