"""Metrics of several versions side by side: values with their errors, and whether a difference is real.

A difference counts as real if it is more than 1.96 times its own standard error, √(s₁² + s₂²): the usual test
of two independent measurements at 95 %. Two versions measured on the same documents differ less by chance
than this test assumes: it may call a real difference uncertain, but not a chance difference real.

Values that are known to be measured in different ways, such as with other settings or on other documents, are
neither better nor worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel

from adaptry.core.evidence.values import Direction
from adaptry.registry.evidence import EvidenceInfo

MIN_RATIO = 1.96
"""The smallest difference that counts as real, in standard errors."""
WIDTH, ROW = 180, 16
_MARGIN = 6

Verdict = Literal[
    "better", "worse", "differs", "measured_differently", "within_error", "same", "unknown_error"
]

VERDICTS: tuple[tuple[Verdict, str, str], ...] = (
    ("better", "better", "live"),
    ("worse", "worse", "bad"),
    ("differs", "differs", "note"),
    ("measured_differently", "measured differently", "warn"),
    ("within_error", "within the error", ""),
    ("unknown_error", "error unknown", ""),
    ("same", "same", ""),
)
"""Each verdict with its words and the tone of its chip, the most telling first."""
_CONDITIONS = (
    ("task_version", "version of the task"),
    ("task_hash", "prompts"),
    ("settings", "settings"),
    ("dataset", "dataset"),
    ("n", "number of documents"),
    ("chat_template", "chat template"),
    ("direction", "direction"),
)
"""What must be equal for two values to be compared, and what it is called."""


class MetricCell(BaseModel):
    """The measurement of one version; None if the version has none. `change` and `verdict` compare it
    with the first version; `ratio` is the change in standard errors, if both errors are known. `differences`
    name what is known to be different in how they were measured.
    """

    evidence: EvidenceInfo | None = None
    change: float | None = None
    ratio: float | None = None
    verdict: Verdict | None = None
    differences: tuple[str, ...] = ()


class ComparedMetric(BaseModel):
    """A metric of a task, with a cell for each version in their order."""

    task: str | None
    metric: str
    filter: str | None
    cells: tuple[MetricCell, ...]


class Interval(BaseModel):
    """A value of a row as a point with its 95 % interval, in the coordinates of a drawing."""

    x: float
    low: float
    high: float
    y: float


def compare_metrics(measured: Sequence[Sequence[EvidenceInfo]]) -> tuple[ComparedMetric, ...]:
    """A row for each metric; `measured` has the evidence of each version, newest first. The newest value
    that was not withdrawn counts. Values at a training's steps are left out.
    """
    newest: list[dict[tuple[str, str, str], EvidenceInfo]] = []
    for evidence in measured:
        found: dict[tuple[str, str, str], EvidenceInfo] = {}
        for one in evidence:
            if one.step is None and one.withdrawn is None:
                found.setdefault((one.task or "", one.metric, one.filter or ""), one)
        newest.append(found)
    keys = sorted({key for found in newest for key in found}, key=lambda key: (not key[0], key))
    return tuple(_row(key, [found.get(key) for found in newest]) for key in keys)


def _row(key: tuple[str, str, str], values: Sequence[EvidenceInfo | None]) -> ComparedMetric:
    task, metric, filter = key
    cells = [_cell(values[0], one, is_first=not place) for place, one in enumerate(values)]
    return ComparedMetric(task=task or None, metric=metric, filter=filter or None, cells=tuple(cells))


def _cell(first: EvidenceInfo | None, one: EvidenceInfo | None, *, is_first: bool) -> MetricCell:
    if one is None or first is None or is_first:
        return MetricCell(evidence=one)
    change = one.value - first.value
    if differences := tuple(_differences(first, one)):
        return MetricCell(
            evidence=one, change=change, verdict="measured_differently", differences=differences
        )
    if change == 0:
        return MetricCell(evidence=one, change=change, verdict="same")
    if one.stderr is None or first.stderr is None:
        return MetricCell(evidence=one, change=change, verdict="unknown_error")
    error = math.hypot(one.stderr, first.stderr)
    ratio = abs(change) / error if error else None
    if ratio is not None and ratio < MIN_RATIO:
        return MetricCell(evidence=one, change=change, ratio=ratio, verdict="within_error")
    return MetricCell(evidence=one, change=change, ratio=ratio, verdict=_sign(change, one.direction))


def _differences(first: EvidenceInfo, one: EvidenceInfo) -> Iterator[str]:
    for field, words in _CONDITIONS:
        before, now = getattr(first, field), getattr(one, field)
        if field == "chat_template" and first.format == one.format == "lm-eval":
            before, now = before or "none", now or "none"  # lm-eval states it if it used none
        if before != now and not {before, now} & {None, "unknown"}:
            yield f"{words}: {_short(now)}, not {_short(before)}"


def _short(value: object) -> str:
    """Hashes are shortened; settings are shown whole."""
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if " " in text else text[:24]


def _sign(change: float, direction: Direction) -> Verdict:
    if direction == "unknown":
        return "differs"
    return "better" if (change > 0) == (direction == "higher") else "worse"


def intervals_of(row: ComparedMetric) -> tuple[Interval | None, ...]:
    """The row's values as a drawing, one below the other, on one scale."""
    spans = [
        (one.value, MIN_RATIO * (one.stderr or 0.0)) if (one := cell.evidence) else None for cell in row.cells
    ]
    known = [span for span in spans if span]
    low, high = min(value - half for value, half in known), max(value + half for value, half in known)

    def place(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(_MARGIN + share * (WIDTH - 2 * _MARGIN), 1)

    return tuple(
        Interval(
            x=place(span[0]),
            low=place(span[0] - span[1]),
            high=place(span[0] + span[1]),
            y=ROW * number + ROW / 2,
        )
        if span
        else None
        for number, span in enumerate(spans)
    )
