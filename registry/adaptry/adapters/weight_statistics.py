"""Statistics of an adapter's updates by module, and the distance between those of two adapters.

They depend only on the files, so they are computed once, by a job, and stored by digest.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

MEASUREMENT = 1
"""The version of the measurement. Results of an older one do not count."""
MAX_SINGULAR_VALUES = 32
"""Singular values that are kept of a module; fewer if the adapter has many modules."""
MAX_KEPT_VALUES = 1 << 17
"""Singular values that are kept of an adapter. Each module keeps at least one."""


class _Figures(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)


class ModuleStatistics(_Figures):
    """The update Δ of one module, with its scale.

    `norm` is ‖Δ‖ (Frobenius). `singular_values` are the largest, descending; the first is the spectral norm.
    `effective_rank` is exp(−Σ p ln p) with p = σ / Σσ over all singular values (Roy and Vetterli, 2007); it
    is None if Δ is 0, or if not all singular values were computed, as for a large Δ without factors. `rank`
    is that of the factors, or the largest that the method allows. A fused parameter counts as one matrix with
    its experts' matrices on the diagonal.
    """

    module: str
    rank: int
    norm: float
    effective_rank: float | None
    singular_values: tuple[float, ...]


class WeightStatistics(_Figures):
    """The updates of all modules: the `norm` over all of them as one vector, and the figures of each."""

    norm: float
    modules: tuple[ModuleStatistics, ...]


class ModulePairDistance(_Figures):
    """One module of two adapters: ‖Δ₁ − Δ₂‖, and the cosine of the angle between them (None: one of the two
    is 0, or one adapter has no update there).
    """

    module: str
    distance: float = Field(ge=0)
    cosine: float | None


class WeightDistance(_Figures):
    """The distance between two adapters, the same in either order: over all modules as one vector, and for
    each module.
    """

    distance: float = Field(ge=0)
    cosine: float | None
    modules: tuple[ModulePairDistance, ...]


class MeasuredWeights(_Figures):
    """The measurements stored for a version: its statistics, and its distance from another version. None: not
    measured.
    """

    statistics: WeightStatistics | None = None
    distance: WeightDistance | None = None


def values_per_module(modules: int) -> int:
    """The number of singular values kept for each module of an adapter with this many modules."""
    return max(1, min(MAX_SINGULAR_VALUES, MAX_KEPT_VALUES // max(1, modules)))
