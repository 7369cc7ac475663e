"""Rows about the updates of revisions: computed by jobs from the files, so they can be dropped and computed
again.
"""

from __future__ import annotations

from sqlalchemy import LargeBinary
from sqlmodel import Field

from adaptry.storage.catalog.rows.row import Row


class WeightMeasurementRow(Row, table=True):
    """The statistics of a revision (`second` is empty), or the distance between two, the lower digest first.

    `measurement` is the version of the measurement (`adaptry.adapters.weight_statistics.MEASUREMENT`).
    `figures` is compressed JSON; `checksum` is over all other columns.
    """

    __tablename__ = "weight_measurements"
    first: str = Field(primary_key=True)
    second: str = Field(primary_key=True, index=True)
    measurement: int
    figures: bytes = Field(sa_type=LargeBinary)
    checksum: str
