"""Results of inspections: the values of a whole file against those of its tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sqlmodel import col, select

from adaptry.adapters.inspection.result import INSPECTION
from adaptry.storage.catalog import inspections
from adaptry.storage.catalog.audit.problem import UNREADABLE, IntegrityProblem
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import InspectionRow

_BATCH = 100


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    after = ""
    while True:
        with catalog.read() as tx:
            query = select(InspectionRow).where(InspectionRow.file_digest > after)
            rows = tx.exec(query.order_by(col(InspectionRow.file_digest)).limit(_BATCH)).all()
        if not rows:
            return
        for row in rows:
            yield from _of_row(row)
        after = rows[-1].file_digest


def _of_row(row: InspectionRow) -> Iterator[IntegrityProblem]:
    where, key = f"inspection of sha256:{row.file_digest[:12]}", f"inspection:{row.file_digest}"
    if row.inspection > INSPECTION:
        reason = f"it has inspection format {row.inspection}, but this Adaptry supports up to {INSPECTION}"
        yield IntegrityProblem(where, reason, "derived", key)
        return
    try:
        found = inspections.unpacked(row.statistics)
        whole = (len(found.tensors), found.nan, found.infinite)
        is_same = whole == (row.tensors, row.nan, row.infinite) and is_close(row.norm, found.norm)
    except UNREADABLE as error:
        yield IntegrityProblem(where, f"its statistics cannot be read: {str(error)[:200]}", "derived", key)
        return
    if not is_same:
        yield IntegrityProblem(
            where, "its values for the whole file differ from those of its tensors", "derived", key
        )


def is_close(one: float | None, other: float | None) -> bool:
    """Whether two norms are equal, except for errors from a different order of additions."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9)
