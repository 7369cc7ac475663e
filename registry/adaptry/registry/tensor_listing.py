"""An inspection as registries and the command line list it: a line for each tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.registry.records import TensorInspection


def list_tensors(found: Mapping[str, WeightsInspection]) -> Iterator[TensorInspection]:
    """Every tensor of inspected files, by path, in the order of the bytes."""
    for path, inspection in found.items():
        for name, tensor in inspection.tensors.items():
            yield TensorInspection(
                file=path,
                tensor=name,
                nan=tensor.nan,
                infinite=tensor.infinite,
                norm=tensor.norm,
                is_zero=tensor.is_zero,
            )
