"""Rows of a registry's epochs, and of recalls that were missing when one began."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Moment, Row


class EpochRow(Row, table=True):
    """The time between restores. New generations are larger than `floor`; `secret` signs workers' proofs."""

    __tablename__ = "epochs"
    number: int = Field(primary_key=True)
    id: str
    began_at: datetime = Field(sa_type=Moment)
    floor: int
    secret: str


class RecallClaimRow(Row, table=True):
    """A version that was withdrawn in an earlier epoch, according to `source`, but not in the restored
    catalog.
    """

    __tablename__ = "recall_claims"
    name: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    state: str
    source: str
    at: datetime = Field(sa_type=Moment)
