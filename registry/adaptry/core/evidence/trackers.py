"""Readers for training and experiment trackers: `trainer_state.json`, MLflow's metric files, W&B's summary.

Histories become curves: a value for each step. A long curve keeps evenly chosen points, including the last;
the stored file has all of them. Bookkeeping values (rates, run times, counters) are not evidence and are left
out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.core.errors import Invalid
from adaptry.core.evidence.parsed_results import (
    ParsedResults,
    count,
    curves,
    mappings,
    measured,
    number,
    require_values,
    text,
)
from adaptry.core.evidence.values import Direction, EvidenceValue

TRAINING = "training"
"""The task name of metrics that a training run measures on itself."""
_BOOKKEEPING = re.compile(
    r"epoch|step|learning_rate|(?:.*_)?grad_norm|total_flos|(?:.*_)?num_(?:input_)?tokens(?:_seen)?|memory/.*"
    r"|.*_runtime|.*_per_second|.*_time"
)
_MLFLOW_LINE = re.compile(r"(?P<time>-?\d+) (?P<value>\S+)(?: (?P<step>-?\d+))?(?: .*)?")
_MAX_LINES = 1_000_000


def read_trainer_state(document: Mapping[str, Any], label: str) -> ParsedResults:
    """Reads the `trainer_state.json` of transformers or TRL. (`Any`: JSON.) Raises `Invalid`."""
    if not isinstance(document.get("log_history"), list):
        raise Invalid(f"{label} has no log_history; is it the trainer_state.json of a transformers Trainer?")
    if not document["log_history"]:
        raise Invalid(f"{label} has no values: nothing was logged in that run (log_history is empty)")
    points = curves(_history(document["log_history"]))
    return ParsedResults(format="trainer-state", values=require_values(points, label), harness="transformers")


def _history(log: Any) -> Iterator[EvidenceValue]:
    """(`Any`: JSON.)"""
    for entry in mappings(log):
        step = count(entry.get("step"))
        for name, logged in entry.items():
            value, metric = number(logged), text(name)
            if value is not None and metric is not None and not _BOOKKEEPING.fullmatch(metric):
                yield _point(metric, value, step)


def read_mlflow_metric(data: bytes, label: str, metric: str) -> ParsedResults:
    """Reads a file of an MLflow run's `metrics` folder: lines of time, value and step. Raises `Invalid`."""
    points: list[EvidenceValue] = []
    for position, line in enumerate(_lines(data, label), 1):
        match = _MLFLOW_LINE.fullmatch(line)
        value = None
        try:
            value = number(float(match["value"])) if match else None
        except ValueError:
            match = None
        if match is None:
            raise Invalid(
                f"line {position} of {label} is not a time, a value and a step, as MLflow writes them"
            )
        if value is not None:
            points.append(_point(metric, value, count(int(match["step"] or 0))))
    return ParsedResults(format="mlflow", values=require_values(curves(points), label), harness="mlflow")


def read_wandb_summary(document: Mapping[str, Any], label: str) -> ParsedResults:
    """Reads a `wandb-summary.json`: the last value of everything that was logged. (`Any`: JSON.)

    Raises `Invalid`.
    """
    step = count(document.get("_step"))
    values = [
        _point(metric, value, step)
        for name, logged in document.items()
        if not name.startswith("_")
        and (value := number(logged)) is not None
        and (metric := text(name)) is not None
        and not _BOOKKEEPING.fullmatch(metric.rpartition("/")[2])
    ]
    return ParsedResults(format="wandb-summary", values=require_values(values, label), harness="wandb")


def _point(metric: str, value: float, step: int | None) -> EvidenceValue:
    return measured(task=TRAINING, metric=metric, value=value, step=step, direction=_direction(metric))


def _direction(metric: str) -> Direction:
    return "lower" if metric.endswith(("loss", "perplexity")) else "unknown"


def _lines(data: bytes, what: str) -> list[str]:
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise Invalid(f"{what} is not UTF-8 text (byte {error.start})") from None
    if len(lines) > _MAX_LINES:
        raise Invalid(f"{what} has more than {_MAX_LINES:,} lines")
    return lines
