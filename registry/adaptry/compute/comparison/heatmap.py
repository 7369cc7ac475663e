"""Draws a report as a PNG: a panel per figure, a row per layer, a column per kind of module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.module_layers import in_model_order, layer_and_kind
from adaptry.compute.comparison.results import CombineReport, ModuleReport
from adaptry.core.display import escape_controls
from adaptry.core.errors import Invalid, MissingDependency
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_INCHES = 60  # maximum size in inches: at 100 dots per inch, image viewers can still open it
_DOTS = 100


@dataclass(frozen=True, slots=True)
class _Panel:
    """One figure: title, a function for a module's value, limits of the scale (None: from the values),
    colours.
    """

    title: str
    value: Callable[[ModuleReport], float | None]
    low: float | None
    high: float | None
    colours: str


def draw_heatmap(report: CombineReport, path: Path) -> None:
    """Writes the report's figures to `path` as a PNG; a module without the figure is grey.

    Raises `MissingDependency` (matplotlib, the extra `plots`), and `Invalid` if there is nothing to draw or
    the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("a heat map is drawn with matplotlib: pip install 'adaptry[plots]'") from None
    panels = [panel for panel in _panels(report) if any(map(_is_there(panel), report.modules))]
    if not panels:
        raise Invalid("nothing to draw: no module of the report has a figure")
    rows, columns = _axes(report.modules)
    width = 1.5 + 0.3 * len(columns)
    figure = Figure(
        figsize=(min(_MAX_INCHES, len(panels) * width + 1), min(_MAX_INCHES, 2.5 + 0.22 * len(rows))),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        _fill(figure, axes, panel, _grid(report.modules, panel, rows, columns))
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
        axes.set_yticks(range(len(rows)), rows if place == 0 else [""] * len(rows), fontsize=7)
    try:
        figure.savefig(path, format="png", dpi=_DOTS)
    except OSError as error:
        raise Invalid(f"cannot write the heat map to {path}: {error.strerror}") from error


def _panels(report: CombineReport) -> Iterator[_Panel]:
    for place, label in enumerate(map(escape_controls, report.parents)):
        yield _Panel(f"cosine with\n{label}", _at("cosines", place), -1.0, 1.0, "RdBu")
    for place, label in enumerate(map(escape_controls, report.parents)):
        yield _Panel(f"norm, as a share of\nthat of {label}", _at("ratios", place), 0.0, None, "viridis")
    yield _Panel("kept energy", lambda module: module.kept, None, 1.0, "viridis")
    yield _Panel("sign conflict\nbetween parents", lambda module: module.conflict, 0.0, 1.0, "magma")
    yield _Panel("column overlap\nof parents", lambda module: module.column_overlap, 0.0, 1.0, "viridis")
    yield _Panel("row overlap\nof parents", lambda module: module.row_overlap, 0.0, 1.0, "viridis")


def _at(field: str, place: int) -> Callable[[ModuleReport], float | None]:
    def value(module: ModuleReport) -> float | None:
        values: Sequence[float | None] = getattr(module, field)
        return values[place]

    return value


def _is_there(panel: _Panel) -> Callable[[ModuleReport], bool]:
    return lambda module: panel.value(module) is not None


def _axes(modules: Sequence[ModuleReport]) -> tuple[list[str], list[str]]:
    """Layers by name and number, kinds by name."""
    places = [layer_and_kind(module.module) for module in modules]
    return in_model_order(layer for layer, _ in places), in_model_order(kind for _, kind in places)


def _grid(
    modules: Sequence[ModuleReport], panel: _Panel, rows: Sequence[str], columns: Sequence[str]
) -> list[list[float]]:
    """The panel's values [layers, kinds]; NaN where a value is missing."""
    at = {name: place for place, name in enumerate(rows)}, {name: place for place, name in enumerate(columns)}
    grid = [[math.nan] * len(columns) for _ in rows]
    for module in modules:
        layer, kind = layer_and_kind(module.module)
        value = panel.value(module)
        grid[at[0][layer]][at[1][kind]] = math.nan if value is None else value
    return grid


def _fill(figure: Figure, axes: Axes, panel: _Panel, grid: list[list[float]]) -> None:
    axes.set_facecolor("lightgrey")
    image = axes.imshow(grid, aspect="auto", cmap=panel.colours, vmin=panel.low, vmax=panel.high)
    axes.set_title(panel.title, fontsize=8)
    figure.colorbar(image, ax=axes, fraction=0.08, pad=0.02).ax.tick_params(labelsize=6)
