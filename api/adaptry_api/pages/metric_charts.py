"""Line charts of metrics, over versions and over a training's steps, as shapes for SVG.

The page draws them without a script, and shows the same numbers in a table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from adaptry.core.display import format_number
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.evidence import EvidenceInfo
from adaptry.registry.records import VersionInfo

WIDTH, HEIGHT = 320, 120
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 10, 10
_MAX_CHARTS = 6
_MAX_POINTS = 200


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A point at (`x`, `y`) of the drawing, with its label, its value, and whether the page emphasises it."""

    x: float
    y: float
    label: str
    value: float
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A series by name: its points from left to right, the line through them, and its least and largest
    value.
    """

    name: str
    points: tuple[ChartPoint, ...]
    line: str
    low: float
    high: float

    @property
    def description(self) -> str:
        """The chart in a sentence."""
        first, last = self.points[0], self.points[-1]
        return (
            f"{self.name}: {format_number(first.value)} at {first.label}, {format_number(last.value)} at"
            f" {last.label}"
        )


def charts_over_versions(versions: Iterable[VersionInfo]) -> tuple[Chart, ...]:
    """A chart for each metric that at least two of the versions have, oldest version first."""
    series: dict[str, list[tuple[float, str, float, str]]] = defaultdict(list)
    for version in sorted(versions, key=lambda one: one.number):
        for name, value in version.metrics.items():
            mark = "alias" if version.aliases else version.state if version.state != "active" else ""
            aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
            series[name].append((version.number, f"version {version.number}{aliases}", value, mark))
    return _charts(series)


def charts_over_steps(evidence: Iterable[EvidenceInfo]) -> tuple[Chart, ...]:
    """A chart for each metric with values at two or more steps."""
    series: dict[str, list[tuple[float, str, float, str]]] = defaultdict(list)
    for one in sorted(evidence, key=lambda each: each.step or 0):
        if one.step is not None and one.withdrawn is None:
            series[one.metric].append((one.step, f"step {one.step}", one.value, ""))
    return _charts(series)


@dataclass(frozen=True, slots=True)
class StepRow:
    """The values of a training at one step, in the order of the table's metrics; None for a metric
    without a value.
    """

    step: int
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class StepTable:
    """The numbers of the charts over steps: a column for each metric, the first steps first."""

    metrics: tuple[str, ...]
    rows: tuple[StepRow, ...]


def step_table(evidence: Iterable[EvidenceInfo]) -> StepTable:
    """The table of the values by step. If a metric has several values at one step, the newest counts;
    `evidence` has the newest first.
    """
    values: dict[int, dict[str, float]] = defaultdict(dict)
    for one in evidence:
        if one.step is not None and one.withdrawn is None:
            values[one.step].setdefault(one.metric, one.value)
    metrics = tuple(sorted({metric for found in values.values() for metric in found}))
    rows = (StepRow(step, tuple(values[step].get(metric) for metric in metrics)) for step in sorted(values))
    return StepTable(metrics, tuple(rows))


def _charts(series: dict[str, list[tuple[float, str, float, str]]]) -> tuple[Chart, ...]:
    return tuple(_chart(name, points[-_MAX_POINTS:]) for name, points in series.items() if len(points) > 1)[
        :_MAX_CHARTS
    ]


def _chart(name: str, points: Sequence[tuple[float, str, float, str]]) -> Chart:
    places, values = [place for place, *_ in points], [value for _, _, value, _ in points]
    low, high, first, last = min(values), max(values), min(places), max(places)
    across, up = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    drawn = tuple(
        ChartPoint(
            x=round(_LEFT + across * (place - first) / ((last - first) or 1), 1),
            y=round(_TOP + up * (1 - (value - low) / (high - low)) if high > low else HEIGHT / 2, 1),
            label=label,
            value=value,
            mark=mark,
        )
        for place, label, value, mark in points
    )
    return Chart(name, drawn, " ".join(f"{point.x},{point.y}" for point in drawn), low, high)
