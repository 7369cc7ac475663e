"""Measurements of revisions' updates, by digest. Results of an older measurement do not count, nor do values
that have changed since they were stored: a job computes them again.
"""

from __future__ import annotations

import zlib

from pydantic import BaseModel
from sqlalchemy import delete, or_
from sqlmodel import col

from adaptry.adapters.weight_statistics import MEASUREMENT, WeightDistance, WeightStatistics
from adaptry.core.digest import Digest
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import WeightMeasurementRow

_ALONE = ""


def find_statistics(tx: Transaction, revision: Digest) -> WeightStatistics | None:
    figures = _figures(tx, revision.hex, _ALONE)
    return WeightStatistics.model_validate_json(figures) if figures is not None else None


def find_distance(tx: Transaction, one: Digest, other: Digest) -> WeightDistance | None:
    figures = _figures(tx, *sorted((one.hex, other.hex)))
    return WeightDistance.model_validate_json(figures) if figures is not None else None


def store_statistics(tx: Transaction, revision: Digest, found: WeightStatistics) -> None:
    _store(tx, revision.hex, _ALONE, found)


def store_distance(tx: Transaction, one: Digest, other: Digest, found: WeightDistance) -> None:
    first, second = sorted((one.hex, other.hex))
    _store(tx, first, second, found)


def forget_revision(tx: Transaction, digest: str) -> None:
    """Drops what was measured of a revision. No error if nothing was."""
    row = WeightMeasurementRow
    tx.execute(delete(row).where(or_(col(row.first) == digest, col(row.second) == digest)))


def forget(tx: Transaction, first: str, second: str) -> None:
    """Drops one measurement. No error if there is none."""
    row = WeightMeasurementRow
    tx.execute(delete(row).where(col(row.first) == first, col(row.second) == second))


def is_intact(row: WeightMeasurementRow) -> bool:
    """Whether the row is as it was stored."""
    return row.checksum == _checksum(row.first, row.second, row.measurement, row.figures)


def _figures(tx: Transaction, *key: str) -> bytes | None:
    row = tx.get(WeightMeasurementRow, key)
    if row is None or row.measurement != MEASUREMENT or not is_intact(row):
        return None
    return zlib.decompress(row.figures)


def _store(tx: Transaction, first: str, second: str, found: BaseModel) -> None:
    figures = zlib.compress(found.model_dump_json().encode(), level=6)
    tx.merge(
        WeightMeasurementRow(
            first=first,
            second=second,
            measurement=MEASUREMENT,
            figures=figures,
            checksum=_checksum(first, second, MEASUREMENT, figures),
        )
    )
    tx.flush()


def _checksum(first: str, second: str, measurement: int, figures: bytes) -> str:
    return Digest.of(f"{first} {second} {measurement} ".encode() + figures).hex
