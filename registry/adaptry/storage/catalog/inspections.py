"""Inspections' findings, by the weights file's digest. Results of an older measurement do not count."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from adaptry.adapters.inspection.result import INSPECTION, TensorStatistics, WeightsInspection
from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry import records
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import change, insert_new
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.version_info import Columns


@statement
def _found() -> Selection:
    return sa.select(tables.inspections).where(
        tables.inspections.c.file_digest == sa.bindparam("file"),
        tables.inspections.c.inspection == INSPECTION,
    )


@statement
def _any() -> Selection:
    return sa.select(tables.inspections.c.inspection).where(
        tables.inspections.c.file_digest == sa.bindparam("file")
    )


@statement
def _replace() -> sa.Update:
    values = ("inspection", "tensors", "nan", "infinite", "norm", "statistics")
    return (
        tables.inspections.update()
        .where(tables.inspections.c.file_digest == sa.bindparam("of_file"))
        .values({name: sa.bindparam(name) for name in values})
    )


def find(tx: Reads, files: Iterable[Digest]) -> dict[Digest, WeightsInspection]:
    """The inspection results of those of the files that were inspected."""
    found = {file: _current(tx, file) for file in files}
    return {file: unpacked(row.statistics) for file, row in found.items() if row is not None}


@dataclass(frozen=True, slots=True)
class EncodedInspection:
    """An inspection result as it is stored."""

    tensors: int
    nan: int
    infinite: int
    norm: float | None
    statistics: bytes

    @classmethod
    def of(cls, found: WeightsInspection) -> EncodedInspection:
        return cls(len(found.tensors), found.nan, found.infinite, found.norm, _packed(found))


def store(tx: Transaction, file: Digest, found: EncodedInspection) -> None:
    values: dict[str, Any] = {
        "file_digest": file.hex,
        "inspection": INSPECTION,
        "tensors": found.tensors,
        "nan": found.nan,
        "infinite": found.infinite,
        "norm": found.norm,
        "statistics": found.statistics,
    }
    if run_select(tx, _any, {"file": file.hex}):
        change(tx, _replace, {"of_file": file.hex, **values})
    else:
        insert_new(tx, "inspections", values)


def files_inspected(tx: Transaction) -> frozenset[Digest]:
    """The files among these with a result of the current measurement."""
    query = sm.select(orm.InspectionRow.file_digest).where(orm.InspectionRow.inspection == INSPECTION)
    return frozenset(map(Digest, tx.exec(query)))


def delete(tx: Transaction, file: Digest) -> None:
    """Deletes a file's result, so that it is inspected again on demand. A missing result is no error."""
    tx.execute(sa.delete(orm.InspectionRow).where(sm.col(orm.InspectionRow.file_digest) == file.hex))


def summaries(tx: Reads, of_versions: Sequence[Collection[Digest]]) -> list[records.InspectionSummary | None]:
    """The combined result of the weights files of each version; None if one of them was not inspected. Runs
    one statement for all.
    """
    files = sorted({file.hex for files in of_versions for file in files})
    parameters = {f"file_{at}": file for at, file in enumerate(files)}
    found = {Digest(row.file_digest): row for row in run_select(tx, _found_of(len(files)), parameters)}
    return [_summary([found.get(file) for file in set(files)]) for files in of_versions]


@lru_cache(maxsize=16)
def _found_of(count: int) -> Selection:
    """(`Any`: typed by its columns.)"""
    files = [sa.bindparam(f"file_{at}", type_=tables.inspections.c.file_digest.type) for at in range(count)]
    columns = [tables.inspections.c[name] for name in ("file_digest", "tensors", "nan", "infinite", "norm")]
    return sa.select(*columns).where(
        tables.inspections.c.file_digest.in_(files), tables.inspections.c.inspection == INSPECTION
    )


def _summary(found: Sequence[Columns | None]) -> records.InspectionSummary | None:
    rows = [row for row in found if row is not None]
    if len(rows) < len(found):
        return None
    norms = [row.norm for row in rows if row.norm is not None]
    whole = math.hypot(*norms) if norms else math.inf
    return records.InspectionSummary(
        tensors=sum(row.tensors for row in rows),
        nan=sum(row.nan for row in rows),
        infinite=sum(row.infinite for row in rows),
        norm=whole if math.isfinite(whole) else None,
    )


def _current(tx: Reads, file: Digest) -> Columns | None:
    rows = run_select(tx, _found, {"file": file.hex})
    return rows[0] if rows else None


def _packed(found: WeightsInspection) -> bytes:
    # Servers before `is_one` read four values, and a server may run beside them during an upgrade.
    listed = {
        name: (tensor.nan, tensor.infinite, tensor.norm, tensor.is_zero, *([True] if tensor.is_one else []))
        for name, tensor in found.tensors.items()
    }
    return zlib.compress(json.dumps(listed).encode(), level=1)


def unpacked(statistics: bytes) -> WeightsInspection:
    """The tensors of a row. Raises the errors of damaged bytes."""
    listed: Mapping[str, list[Any]] = json.loads(zlib.decompress(statistics))  # `Any`: that `_packed` wrote
    return WeightsInspection({name: TensorStatistics(*found) for name, found in listed.items()})
