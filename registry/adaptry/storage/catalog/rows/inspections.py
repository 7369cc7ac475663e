"""Rows about what weights files hold: derived from the bytes, so they can be dropped and found again."""

from __future__ import annotations

from sqlalchemy import BigInteger, LargeBinary
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Row


class InspectionRow(Row, table=True):
    """What an inspection found in a weights file, whoever has the file.

    `inspection` is the version of the measurement (`adaptry.adapters.inspection.result.INSPECTION`).
    `statistics` has every tensor, as compressed JSON; the other columns are of the whole file.
    """

    __tablename__ = "inspections"
    file_digest: str = Field(primary_key=True)
    inspection: int
    tensors: int
    nan: int = Field(sa_type=BigInteger)
    infinite: int = Field(sa_type=BigInteger)
    norm: float | None = None
    statistics: bytes = Field(sa_type=LargeBinary)
