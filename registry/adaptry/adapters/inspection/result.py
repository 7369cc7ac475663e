"""The results of an inspection: for each tensor of a file, and for the whole file."""

from __future__ import annotations

import math
from collections.abc import Mapping

from adaptry.core.lazy_dataclass import dataclass

INSPECTION = 1
"""The version of the measurement. A stored result of an older version counts as missing."""


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """Statistics of one tensor: how many elements are NaN or infinite, and the Euclidean norm of the others.

    `norm` is None for dtypes whose values have no magnitude (integers, booleans, packed weights), and if it
    is too large for a float64. `is_zero`: it has elements, and all are zero. `is_one`: it has elements, and
    all are 1; False in results that were stored before this was measured.
    """

    nan: int
    infinite: int
    norm: float | None
    is_zero: bool
    is_one: bool = False


@dataclass(frozen=True, slots=True)
class WeightsInspection:
    """Statistics of a file's tensors by name, in the order of their bytes."""

    tensors: Mapping[str, TensorStatistics]

    @property
    def nan(self) -> int:
        return sum(tensor.nan for tensor in self.tensors.values())

    @property
    def infinite(self) -> int:
        return sum(tensor.infinite for tensor in self.tensors.values())

    @property
    def norm(self) -> float | None:
        """The norm of all tensors that have one, as if they were one vector."""
        norms = [tensor.norm for tensor in self.tensors.values() if tensor.norm is not None]
        norm = math.hypot(*norms)
        return norm if norms and math.isfinite(norm) else None
