"""Rows of a registry's epochs, and of recalls that it had forgotten when one began."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Moment, Row


class EpochRow(Row, table=True):
    """The span between restores. New generations exceed `floor`; `secret` signs workers' proofs."""

    __tablename__ = "epochs"
    number: int = Field(primary_key=True)
    id: str
    began_at: datetime = Field(sa_type=Moment)
    floor: int
    secret: str


class RecallClaimRow(Row, table=True):
    """A version that was withdrawn in an earlier epoch, unknown to the restored catalog; `source` knew it."""

    __tablename__ = "recall_claims"
    name: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    state: str
    source: str
    at: datetime = Field(sa_type=Moment)
