"""Measurements of revisions' updates: rows against their checksums."""

from __future__ import annotations

from collections.abc import Iterator

from sqlmodel import col, select

from adaptry.adapters.weight_statistics import MEASUREMENT
from adaptry.storage.catalog import weight_measurements
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import WeightMeasurementRow as _Row

_BATCH = 20


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    after = ("", "")
    while True:
        first, second = col(_Row.first), col(_Row.second)
        is_later = (first > after[0]) | ((first == after[0]) & (second > after[1]))
        with catalog.read() as tx:
            rows = tx.exec(select(_Row).where(is_later).order_by(first, second).limit(_BATCH)).all()
        if not rows:
            return
        for row in rows:
            yield from _of_row(row)
        after = rows[-1].first, rows[-1].second


def _of_row(row: _Row) -> Iterator[IntegrityProblem]:
    where, key = f"weights of sha256:{row.first[:12]}", f"weight-measurement:{row.first}:{row.second}"
    if not weight_measurements.is_intact(row):
        yield IntegrityProblem(where, "its measurement differs from its checksum", "derived", key)
    elif row.measurement > MEASUREMENT:
        reason = f"it has measurement {row.measurement}, but this Adaptry supports up to {MEASUREMENT}"
        yield IntegrityProblem(where, reason, "derived", key)
