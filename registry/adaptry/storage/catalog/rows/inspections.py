"""Rows about the contents of weights files: derived from the bytes, so they can be dropped and derived
again.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, LargeBinary
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Row


class InspectionRow(Row, table=True):
    """The result of an inspection of a weights file, for all its owners.

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
