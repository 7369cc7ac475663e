"""The values an inspection finds: for each tensor of a file, and for the file as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

INSPECTION = 1
"""The version of the measurement. A stored result of an older one counts as not inspected."""


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """What one tensor holds: NaN and infinite elements, and the Euclidean norm of the others.

    `norm` is None for dtypes without numbers of their own (integers, booleans, packed weights), and where it
    exceeds a float64. `is_zero`: every element is zero, and there is one.
    """

    nan: int
    infinite: int
    norm: float | None
    is_zero: bool


@dataclass(frozen=True, slots=True)
class WeightsInspection:
    """A file's tensors by name, in the order of their bytes."""

    tensors: Mapping[str, TensorStatistics]

    @property
    def nan(self) -> int:
        return sum(tensor.nan for tensor in self.tensors.values())

    @property
    def infinite(self) -> int:
        return sum(tensor.infinite for tensor in self.tensors.values())

    @property
    def norm(self) -> float | None:
        """Of all tensors that have one, as if they were one vector."""
        norms = [tensor.norm for tensor in self.tensors.values() if tensor.norm is not None]
        norm = math.hypot(*norms)
        return norm if norms and math.isfinite(norm) else None
