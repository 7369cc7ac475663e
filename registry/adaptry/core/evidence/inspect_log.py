"""Inspect (inspect_ai): the logs that it writes as `.json`. A log that did not succeed is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.core.errors import Invalid
from adaptry.core.evidence.parsed_results import (
    ParsedResults,
    count,
    mapping,
    mappings,
    measured,
    number,
    require_values,
    text,
)
from adaptry.core.evidence.values import EvidenceValue

_STDERR = "stderr"


def is_log(document: Mapping[str, Any]) -> bool:
    """(`Any`: JSON.)"""
    return {"eval", "status"} <= document.keys()


def read_log(document: Mapping[str, Any], label: str) -> ParsedResults:
    """Reads a log. (`Any`: JSON.) Raises `Invalid`."""
    if document["status"] != "success":
        raise Invalid(
            f"{label} is the log of an evaluation that did not succeed ({text(document['status'])})"
        )
    run = mapping(document["eval"])
    return ParsedResults(
        format="inspect",
        values=require_values(_scores(run, mapping(document.get("results"))), label),
        harness="inspect_ai",
        harness_version=text(mapping(run.get("packages")).get("inspect_ai")),
        harness_commit=text(mapping(run.get("revision")).get("commit")),
    )


def _scores(run: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[EvidenceValue]:
    """(`Any`: JSON.)"""
    dataset = text(mapping(run.get("dataset")).get("name"))
    for score in mappings(results.get("scores")):
        metrics = mapping(score.get("metrics"))
        error = number(mapping(metrics.get(_STDERR)).get("value"))
        is_single = len([name for name in metrics if name != _STDERR]) == 1
        for name, metric in metrics.items():
            value = number(mapping(metric).get("value"))
            if value is None or name == _STDERR:
                continue
            yield measured(
                task=text(run.get("task")),
                task_version=text(run.get("task_version")),
                metric=text(name),
                filter=text(score.get("name")),
                value=value,
                stderr=error if is_single and error is not None and error >= 0 else None,
                n=count(score.get("scored_samples")) or count(results.get("completed_samples")),
                dataset=dataset,
            )
