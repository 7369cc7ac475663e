"""Inspections' findings, by the weights file's digest. Results of an older measurement do not count."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, bindparam, delete
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from adaptry.adapters.inspection.result import INSPECTION, TensorStatistics, WeightsInspection
from adaptry.core.digest import Digest
from adaptry.registry.records import InspectionSummary
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import insert_new
from adaptry.storage.catalog.rows import InspectionRow
from adaptry.storage.catalog.version_info import Columns, table_of

_INSPECTIONS = table_of(InspectionRow)
_FOUND = select_columns(_INSPECTIONS).where(
    _INSPECTIONS.c.file_digest == bindparam("file"), _INSPECTIONS.c.inspection == INSPECTION
)

_ANY = select_columns(_INSPECTIONS.c.inspection).where(_INSPECTIONS.c.file_digest == bindparam("file"))


def find(tx: Reads, files: Iterable[Digest]) -> dict[Digest, WeightsInspection]:
    """The results of the files among these that were inspected."""
    found = {file: _current(tx, file) for file in files}
    return {file: unpacked(row.statistics) for file, row in found.items() if row is not None}


def store(tx: Transaction, file: Digest, found: WeightsInspection) -> None:
    values: dict[str, Any] = {
        "file_digest": file.hex,
        "inspection": INSPECTION,
        "tensors": len(found.tensors),
        "nan": found.nan,
        "infinite": found.infinite,
        "norm": found.norm,
        "statistics": _packed(found),
    }
    if run_select(tx, _ANY, {"file": file.hex}):
        tx.merge(InspectionRow(**values))
    else:
        insert_new(tx, InspectionRow, values)


def files_inspected(tx: Transaction) -> frozenset[Digest]:
    """The files among these with a result of the current measurement."""
    query = select(InspectionRow.file_digest).where(InspectionRow.inspection == INSPECTION)
    return frozenset(map(Digest, tx.exec(query)))


def forget(tx: Transaction, file: Digest) -> None:
    """Drops a file's result, so that it is inspected again on demand. No error if there is none."""
    tx.execute(delete(InspectionRow).where(col(InspectionRow.file_digest) == file.hex))


def summaries(tx: Reads, of_versions: Sequence[Collection[Digest]]) -> list[InspectionSummary | None]:
    """For the weights files of each version: their combined result; None if one of them was not inspected.
    One statement for all.
    """
    files = sorted({file.hex for files in of_versions for file in files})
    parameters = {f"file_{at}": file for at, file in enumerate(files)}
    found = {Digest(row.file_digest): row for row in run_select(tx, _found_of(len(files)), parameters)}
    return [_summary([found.get(file) for file in set(files)]) for files in of_versions]


@lru_cache(maxsize=16)
def _found_of(count: int) -> Select[Any]:
    """(`Any`: typed by its columns.)"""
    files = [bindparam(f"file_{at}", type_=_INSPECTIONS.c.file_digest.type) for at in range(count)]
    columns = [_INSPECTIONS.c[name] for name in ("file_digest", "tensors", "nan", "infinite", "norm")]
    return select_columns(*columns).where(
        _INSPECTIONS.c.file_digest.in_(files), _INSPECTIONS.c.inspection == INSPECTION
    )


def _summary(found: Sequence[Columns | None]) -> InspectionSummary | None:
    rows = [row for row in found if row is not None]
    if len(rows) < len(found):
        return None
    norms = [row.norm for row in rows if row.norm is not None]
    whole = math.hypot(*norms) if norms else math.inf
    return InspectionSummary(
        tensors=sum(row.tensors for row in rows),
        nan=sum(row.nan for row in rows),
        infinite=sum(row.infinite for row in rows),
        norm=whole if math.isfinite(whole) else None,
    )


def _current(tx: Reads, file: Digest) -> Columns | None:
    rows = run_select(tx, _FOUND, {"file": file.hex})
    return rows[0] if rows else None


def _packed(found: WeightsInspection) -> bytes:
    listed = {
        name: (tensor.nan, tensor.infinite, tensor.norm, tensor.is_zero)
        for name, tensor in found.tensors.items()
    }
    return zlib.compress(json.dumps(listed).encode(), level=1)


def unpacked(statistics: bytes) -> WeightsInspection:
    """The tensors of a row. Raises the errors of damaged bytes."""
    listed: Mapping[str, tuple[int, int, float | None, bool]] = json.loads(zlib.decompress(statistics))
    return WeightsInspection({name: TensorStatistics(*found) for name, found in listed.items()})
