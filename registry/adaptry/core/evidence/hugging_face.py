"""Results in the Hub's formats: `.eval_results/*.yaml`, and `model-index` in the head of a README."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.core.errors import Invalid
from adaptry.core.evidence.parsed_results import (
    ParsedResults,
    mapping,
    mappings,
    measured,
    number,
    require_values,
    text,
)
from adaptry.core.evidence.values import EvidenceValue
from adaptry.core.processes import yaml_reader
from adaptry.core.readme_head import README_HEAD

_MAX_YAML = 64 << 10


def read_eval_results(data: bytes, label: str) -> ParsedResults:
    """Reads a file of `.eval_results/`. Raises `Invalid`, `Unavailable` (`yaml_reader`)."""
    document = yaml_reader.loads(_decoded(data, label), label)
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise Invalid(f"{label} is not a list of results (- dataset: {{id: …, task_id: …}}, value: …)")
    values = [value for item in document if (value := _eval_result(item)) is not None]
    return ParsedResults(format="eval-results", values=require_values(values, label))


def read_model_index(data: bytes, label: str) -> ParsedResults | None:
    """Reads the `model-index` of a README; None if it has no results. Raises the errors of
    `read_eval_results`.
    """
    match = README_HEAD.match(_decoded(data, label, limit=None))
    if match is None or "model-index" not in match[2]:
        return None
    if len(match[2]) > _MAX_YAML:
        raise Invalid(f"the head of {label} is longer than {_MAX_YAML >> 10} KiB")
    head = mapping(yaml_reader.loads(match[2], f"the head of {label}"))
    values = list(_indexed(head.get("model-index")))
    return ParsedResults(format="model-index", values=require_values(values, label)) if values else None


def _eval_result(item: Mapping[str, Any]) -> EvidenceValue | None:
    """(`Any`: YAML.)"""
    dataset, value = mapping(item.get("dataset")), number(item.get("value"))
    id = text(dataset.get("id"))
    if value is None or id is None:
        return None
    return measured(
        task=text(dataset.get("task_id")) or id,
        task_version=text(dataset.get("revision")),
        metric="value",
        value=value,
        dataset=id,
    )


def _indexed(index: object) -> Iterator[EvidenceValue]:
    for model in mappings(index):
        for result in mappings(model.get("results")):
            dataset, task = mapping(result.get("dataset")), mapping(result.get("task"))
            id = text(dataset.get("type")) or text(dataset.get("name"))
            for metric in mappings(result.get("metrics")):
                value, name = number(metric.get("value")), text(metric.get("type"))
                if value is not None and name is not None:
                    yield measured(
                        task=text(task.get("type")) or text(task.get("name")),
                        task_version=text(dataset.get("revision")),
                        metric=name,
                        value=value,
                        dataset=id,
                    )


def _decoded(data: bytes, what: str, limit: int | None = _MAX_YAML) -> str:
    if limit is not None and len(data) > limit:
        raise Invalid(f"{what} is {len(data):,} bytes; at most {limit:,} are read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"{what} is not UTF-8 text (byte {error.start})") from None
