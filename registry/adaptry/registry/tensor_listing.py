"""Lists the results of an inspection, one line per tensor."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import islice

from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.registry.records import TensorInspection


def list_tensors(
    inspections: Mapping[str, WeightsInspection], start: int = 0, count: int | None = None
) -> Iterator[TensorInspection]:
    """The tensors of inspected files, by path, in the order of the bytes: all, or `count` from `start` on."""
    every = (
        (path, name, tensor)
        for path, inspection in inspections.items()
        for name, tensor in inspection.tensors.items()
    )
    first = min(start, sys.maxsize)  # a forged start may be larger than islice takes
    stop = None if count is None else min(start + count, sys.maxsize)
    for path, name, tensor in islice(every, first, stop):
        yield TensorInspection(
            file=path,
            tensor=name,
            nan=tensor.nan,
            infinite=tensor.infinite,
            norm=tensor.norm,
            is_zero=tensor.is_zero,
        )
