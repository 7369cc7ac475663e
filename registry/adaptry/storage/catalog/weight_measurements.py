"""Measurements of revisions' updates, by digest. Results of an older measurement do not count, nor do values
that have changed since they were stored: a job computes them again.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel

from adaptry.adapters.weight_statistics import (
    MEASUREMENT,
    MeasuredWeights,
    WeightDistance,
    WeightStatistics,
)
from adaptry.core.digest import Digest
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm

_NO_OTHER = ""
Figures = TypeVar("Figures", bound=BaseModel)


def find_statistics(tx: Transaction, revision: Digest) -> WeightStatistics | None:
    return _parsed(WeightStatistics, _figures(tx, revision.hex, _NO_OTHER))


def find_distance(tx: Transaction, one: Digest, other: Digest) -> WeightDistance | None:
    return _parsed(WeightDistance, _figures(tx, *_pair(one, other)))


def find_measured(tx: Transaction, revisions: Sequence[Digest]) -> list[MeasuredWeights]:
    """The statistics of each revision, and its distance from the first, in one statement."""
    alone = [(revision.hex, _NO_OTHER) for revision in revisions]
    pairs = [_pair(revisions[0], revision) for revision in revisions]
    row = orm.WeightMeasurementRow
    wanted = sm.select(row).where(sa.tuple_(sm.col(row.first), sm.col(row.second)).in_({*alone, *pairs}))
    stored = {(found.first, found.second): _unpacked(found) for found in tx.exec(wanted)}
    return [
        MeasuredWeights(
            statistics=_parsed(WeightStatistics, stored.get(own)),
            distance=_parsed(WeightDistance, stored.get(pair)),
        )
        for own, pair in zip(alone, pairs, strict=True)
    ]


def store_statistics(tx: Transaction, revision: Digest, found: WeightStatistics) -> None:
    _store(tx, revision.hex, _NO_OTHER, found)


def store_distance(tx: Transaction, one: Digest, other: Digest, found: WeightDistance) -> None:
    _store(tx, *_pair(one, other), found)


def delete_of_revision(tx: Transaction, digest: str) -> None:
    """Drops what was measured of a revision. No error if nothing was."""
    row = orm.WeightMeasurementRow
    tx.execute(sa.delete(row).where(sa.or_(sm.col(row.first) == digest, sm.col(row.second) == digest)))


def delete(tx: Transaction, first: str, second: str) -> None:
    """Drops one measurement. A missing one is no error."""
    row = orm.WeightMeasurementRow
    tx.execute(sa.delete(row).where(sm.col(row.first) == first, sm.col(row.second) == second))


def is_intact(row: orm.WeightMeasurementRow) -> bool:
    """Whether the row is as it was stored."""
    return row.checksum == _checksum(row.first, row.second, row.measurement, row.figures)


def _pair(one: Digest, other: Digest) -> tuple[str, str]:
    """The key of a distance, which is the same in both directions."""
    first, second = sorted((one.hex, other.hex))
    return first, second


def _figures(tx: Transaction, *key: str) -> bytes | None:
    row = tx.get(orm.WeightMeasurementRow, key)
    return _unpacked(row) if row else None


def _unpacked(row: orm.WeightMeasurementRow) -> bytes | None:
    if row.measurement != MEASUREMENT or not is_intact(row):
        return None
    return zlib.decompress(row.figures)


def _parsed(kind: type[Figures], figures: bytes | None) -> Figures | None:
    return kind.model_validate_json(figures) if figures is not None else None


def _store(tx: Transaction, first: str, second: str, found: BaseModel) -> None:
    figures = zlib.compress(found.model_dump_json().encode(), level=6)
    tx.merge(
        orm.WeightMeasurementRow(
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
