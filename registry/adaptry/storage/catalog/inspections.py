"""Inspections' findings, by the weights file's digest. Results of an older measurement do not count."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping

from sqlalchemy import ColumnElement, delete
from sqlmodel import col, select

from adaptry.adapters.inspection.result import INSPECTION, TensorStatistics, WeightsInspection
from adaptry.core.digest import Digest
from adaptry.registry.records import InspectionSummary
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import InspectionRow


def find(tx: Transaction, files: Iterable[Digest]) -> dict[Digest, WeightsInspection]:
    """Of those of the files that were inspected."""
    query = select(InspectionRow.file_digest, InspectionRow.statistics).where(*_current(files))
    return {Digest(hexed): unpacked(statistics) for hexed, statistics in tx.exec(query)}


def store(tx: Transaction, file: Digest, found: WeightsInspection) -> None:
    row = InspectionRow(
        file_digest=file.hex,
        inspection=INSPECTION,
        tensors=len(found.tensors),
        nan=found.nan,
        infinite=found.infinite,
        norm=found.norm,
        statistics=_packed(found),
    )
    tx.merge(row)


def files_inspected(tx: Transaction) -> frozenset[Digest]:
    """Those with a result of this measurement."""
    query = select(InspectionRow.file_digest).where(InspectionRow.inspection == INSPECTION)
    return frozenset(map(Digest, tx.exec(query)))


def forget(tx: Transaction, file: Digest) -> None:
    """The file is inspected anew when somebody asks. No error where it was not inspected."""
    tx.execute(delete(InspectionRow).where(col(InspectionRow.file_digest) == file.hex))


def summary(tx: Transaction, files: Iterable[Digest]) -> InspectionSummary | None:
    """Of several files as one; None where one of them was not inspected."""
    wanted = set(files)
    query = select(InspectionRow.tensors, InspectionRow.nan, InspectionRow.infinite, InspectionRow.norm)
    rows = tx.exec(query.where(*_current(wanted))).all()
    if len(rows) < len(wanted):
        return None
    norms = [norm for _, _, _, norm in rows if norm is not None]
    whole = math.hypot(*norms) if norms else math.inf
    return InspectionSummary(
        tensors=sum(tensors for tensors, _, _, _ in rows),
        nan=sum(nan for _, nan, _, _ in rows),
        infinite=sum(infinite for _, _, infinite, _ in rows),
        norm=whole if math.isfinite(whole) else None,
    )


def _current(files: Iterable[Digest]) -> tuple[ColumnElement[bool], ...]:
    return (
        col(InspectionRow.file_digest).in_([file.hex for file in files]),
        col(InspectionRow.inspection) == INSPECTION,
    )


def _packed(found: WeightsInspection) -> bytes:
    listed = {
        name: (tensor.nan, tensor.infinite, tensor.norm, tensor.is_zero)
        for name, tensor in found.tensors.items()
    }
    return zlib.compress(json.dumps(listed).encode(), level=1)


def unpacked(statistics: bytes) -> WeightsInspection:
    """The tensors of a row. Raises what damaged bytes raise."""
    listed: Mapping[str, tuple[int, int, float | None, bool]] = json.loads(zlib.decompress(statistics))
    return WeightsInspection({name: TensorStatistics(*found) for name, found in listed.items()})
