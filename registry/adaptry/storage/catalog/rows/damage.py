"""Rows about damage: stored files that are known to be damaged or lost, and the revisions that need them."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Moment, Row


class DamagedFileRow(Row, table=True):
    """A file whose stored bytes do not match its digest (`reason`), until they are stored again."""

    __tablename__ = "damaged_files"
    digest: str = Field(primary_key=True)
    reason: str
    found_at: datetime = Field(sa_type=Moment)


class DamagedRevisionRow(Row, table=True):
    """A revision that needs a damaged file; if its manifest is damaged, `file` is the revision itself."""

    __tablename__ = "damaged_revisions"
    revision: str = Field(primary_key=True)
    file: str = Field(primary_key=True, index=True)
