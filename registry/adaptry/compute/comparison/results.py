"""Results of comparisons, with the same fields in JSON and in memory. None means that a figure is
undefined.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from adaptry.core.display import format_count, format_decimal, html_table, short_repr


class _Figures(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)


class ModuleReport(_Figures):
    """One module of a result, compared with its parents.

    `norm` is ‖Δ‖ (Frobenius) of the result, `norms` those of the parents (None: no update there). `ratios`
    are the result's norm divided by each parent's, and `cosines` those of the angles between result and
    parents. `kept` is the share of ‖Δ‖² that the computation kept. `conflict` is the share of Σ|Δ| on
    elements where the parents' signs differ, from `rows_seen` of `rows` rows. `column_overlap` and
    `row_overlap` are the share of the parents' smaller column or row space that lies in the larger, as the
    mean over pairs of parents.
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
    """A result compared with its parents: the figures of `ModuleReport` over all modules, and for each.

    Norms, ratios and cosines treat the updates of all modules as one vector; conflict is weighted
    accordingly; overlaps are means over modules. `doing_nothing` lists modules of the result whose update is
    practically 0.
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


class ParentsModule(_Figures):
    """One module of several adapters, with fields as in `ModuleReport`."""

    module: str
    norms: tuple[float | None, ...]
    conflict: float | None = None
    column_overlap: float | None = None
    row_overlap: float | None = None


class ParentsReport(_Figures):
    """Adapters compared with one another: over all modules as in `CombineReport`, and for each module."""

    parents: tuple[str, ...]
    norms: tuple[float, ...]
    conflict: float | None
    column_overlap: float | None
    row_overlap: float | None
    modules: tuple[ParentsModule, ...]
    notes: tuple[str, ...] = ()


class ModuleDistance(_Figures):
    """One module of two adapters. `distance` is ‖Δ_a − Δ_b‖ / ‖Δ_a‖ (None: the first has no update there),
    `ratio` is ‖Δ_b‖ / ‖Δ_a‖; other fields as in `ModuleReport`. A rank of 0 means that the adapter has no
    update there.
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
    """The distance of two adapters: over all modules as one vector, and per module, largest first."""

    distance: float | None
    cosine: float | None
    ratio: float | None
    conflict: float | None
    column_overlap: float | None
    row_overlap: float | None
    modules: tuple[ModuleDistance, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return short_repr(
            self,
            format_count(len(self.modules), "module"),
            f"distance {_text(self.distance)}",
            f"cosine {_text(self.cosine)}",
            f"norm ratio {_text(self.ratio)}",
        )

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        over_all = ("all modules", *map(_text, (self.distance, self.cosine, self.ratio)), "")
        rows = [
            (
                each.module,
                *map(_text, (each.distance, each.cosine, each.ratio)),
                " → ".join(str(rank or "none") for rank in each.ranks),
            )
            for each in self.modules
        ]
        columns = ("module", "distance", "cosine", "norm ratio", "ranks")
        return html_table("How far apart the updates are", columns, [over_all, *rows], self.notes, maximum=21)


def _text(value: float | None) -> str:
    return "none" if value is None else format_decimal(value)


class SimilarAdapter(_Figures):
    """An adapter that is similar to another. `cosine` is that of the angle between the updates of all
    modules, and `ratio` that of their norms; both are None if the updates are not sums of factors, so that
    only `same_weights` can be determined.
    """

    ref: str
    digest: str
    cosine: float | None
    ratio: float | None
    shared_modules: int | None
    modules: int
    same_weights: bool


class SimilarAdapters(_Figures):
    """Adapters similar to one, most similar first.

    `looked_at` is the number of versions examined; `by_weights_only`, how many of these could be compared
    only by digest; `likely_more`, how many versions above the threshold by their signatures were cut off by
    the limit. `uncompared`: why the adapter itself, and so every version, was compared only by digest.
    """

    found: tuple[SimilarAdapter, ...]
    looked_at: int
    by_weights_only: int = Field(ge=0)
    likely_more: int = Field(ge=0)
    uncompared: str | None = None
    notes: tuple[str, ...] = ()
