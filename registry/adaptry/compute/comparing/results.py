"""What comparing answers: values, in JSON as in memory. None stands where a figure has no meaning."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModuleReport(_Figures):
    """One module of a result, and what its parents had there.

    `norm` is ‖Δ‖ (Frobenius) of the result, `norms` of each parent (None: it has no update there), `ratios`
    the one by the others, `cosines` of the angles between them. `kept` is the share of ‖Δ‖² that its making
    kept. `conflict` is the share of Σ|Δ| that parents have on elements where their signs differ; it was seen
    on `rows_seen` of `rows` rows. `column_overlap` and `row_overlap`: how much of the parents' smaller
    subspace lies in the larger, of what is written to and read from; the mean over pairs of parents.
    """

    module: str
    norm: float | None
    norms: tuple[float | None, ...]
    ratios: tuple[float | None, ...]
    cosines: tuple[float | None, ...]
    kept: float | None = None
    conflict: float | None = None
    column_overlap: float | None = None
    row_overlap: float | None = None
    rows_seen: int | None = None
    rows: int | None = None
    does_nothing: bool = False


class CombineReport(_Figures):
    """A result against its parents: each figure over all modules, as in `ModuleReport` for one, and by each.

    Norms, ratios and cosines are of the updates of all modules as one vector; conflict is weighted likewise;
    overlaps are means over modules. `doing_nothing` names modules of the result whose update is practically
    0.
    """

    parents: tuple[str, ...]
    norm: float
    norms: tuple[float, ...]
    ratios: tuple[float | None, ...]
    cosines: tuple[float | None, ...]
    kept: float | None
    conflict: float | None
    column_overlap: float | None
    row_overlap: float | None
    doing_nothing: tuple[str, ...]
    modules: tuple[ModuleReport, ...]
    notes: tuple[str, ...] = ()


class ModuleDistance(_Figures):
    """One module of two adapters. `distance` is ‖Δ_a − Δ_b‖ / ‖Δ_a‖ (None: the first has no update there),
    `ratio` is ‖Δ_b‖ / ‖Δ_a‖; the others as in `ModuleReport`. A rank of 0: that adapter has no update
    there.
    """

    module: str
    distance: float | None
    cosine: float | None
    ratio: float | None
    ranks: tuple[int, int]
    conflict: float | None = None
    column_overlap: float | None = None
    row_overlap: float | None = None
    rows_seen: int | None = None
    rows: int | None = None


class AdapterDistance(_Figures):
    """How far apart two adapters are: over all modules as one vector, and per module, farthest first."""

    distance: float | None
    cosine: float | None
    ratio: float | None
    conflict: float | None
    column_overlap: float | None
    row_overlap: float | None
    modules: tuple[ModuleDistance, ...]
    notes: tuple[str, ...] = ()


class SimilarAdapter(_Figures):
    """An adapter and one that is like it. `cosine` of the angle between the updates of all modules and
    `ratio` of their norms; None where they are no sums of factors, so that only `same_weights` can be
    told."""

    ref: str
    digest: str
    cosine: float | None
    ratio: float | None
    shared_modules: int | None
    modules: int
    same_weights: bool


class SimilarAdapters(_Figures):
    """What is like an adapter, the nearest first.

    `looked_at`: how many versions there were; `by_weights_only`: of these, how many could be compared by
    digest alone; `likely_more`: versions that their signatures put over the threshold and that were left out
    by the limit.
    """

    found: tuple[SimilarAdapter, ...]
    looked_at: int
    by_weights_only: int = Field(ge=0)
    likely_more: int = Field(ge=0)
    notes: tuple[str, ...] = ()
