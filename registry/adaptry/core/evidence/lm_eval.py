"""lm-evaluation-harness: `results_….json`, and `samples_<task>_….jsonl` with the value of each document.

A key of a task's results is `metric,filter`; the standard error is `metric_stderr,filter`. A samples file
belongs to the results of the same time, which is in both names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.evidence.lm_eval_settings import settings_of
from adaptry.core.evidence.parsed_results import (
    ParsedResults,
    count,
    mapping,
    measured,
    number,
    require_values,
    text,
)
from adaptry.core.evidence.values import Direction, EvidenceValue
from adaptry.core.lazy_dataclass import dataclass

_NO_METRICS = frozenset({"name", "alias", "sample_len"})
_STDERR = "_stderr"
_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT[0-9-]+(?:\.\d+)?)\.jsonl")
_RESULTS = re.compile(r"results_(?P<time>\d{4}-\d\d-\d\dT[0-9-]+(?:\.\d+)?)\.json")
MAX_LINE = 8 << 20
"""Bytes of one line of a samples file."""


def results_time(name: str) -> str | None:
    """The time in the name of a results file; None for another file."""
    match = _RESULTS.fullmatch(name)
    return match["time"] if match else None


def samples_of(name: str) -> tuple[str, str] | None:
    """The task and the time in the name of a samples file; None for another file."""
    match = _SAMPLES.fullmatch(name)
    return (match["task"], match["time"]) if match else None


def is_results(document: Mapping[str, Any]) -> bool:
    """(`Any`: JSON.)"""
    return "results" in document and bool({"lm_eval_version", "higher_is_better"} & document.keys())


def read_results(
    document: Mapping[str, Any], label: str, samples: Mapping[str, Digest] | None = None
) -> ParsedResults:
    """Reads a results file; `samples` are the samples files by task. (`Any`: JSON.)

    Raises `Invalid`.
    """
    values = [
        value
        for task, scores in mapping(document["results"]).items()
        for value in _of_task(document, str(task), mapping(scores), samples or {})
    ]
    config = mapping(document.get("config"))
    return ParsedResults(
        format="lm-eval",
        values=require_values(values, label),
        harness="lm-eval",
        harness_version=text(document.get("lm_eval_version")),
        harness_commit=text(document.get("git_hash")),
        chat_template=text(document.get("chat_template_sha")),
        revision=text(config.get("peft_sha")) or "",
    )


def _of_task(
    document: Mapping[str, Any], task: str, scores: Mapping[str, Any], samples: Mapping[str, Digest]
) -> Iterator[EvidenceValue]:
    """(`Any`: JSON.)"""
    sizes = mapping(mapping(document.get("n-samples")).get(task))
    better = mapping(mapping(document.get("higher_is_better")).get(task))
    dataset = mapping(mapping(document.get("configs")).get(task)).get("dataset_path")
    settings = settings_of(document, task)
    for key, score in scores.items():
        metric, _, filter = key.partition(",")
        value = number(score)
        if value is None or metric in _NO_METRICS or metric.endswith(_STDERR):
            continue
        error = number(scores.get(f"{metric}{_STDERR},{filter}"))
        yield measured(
            task=text(task),
            task_version=text(mapping(document.get("versions")).get(task)),
            task_hash=text(mapping(document.get("task_hashes")).get(task)),
            metric=text(metric),
            settings=settings,
            filter=None if filter in ("", "none") else text(filter),
            value=value,
            stderr=error if error is None or error >= 0 else None,
            n=count(sizes.get("effective")) or count(scores.get("sample_len")),
            direction=_direction(better.get(metric)),
            dataset=text(dataset) if _is_public(dataset) else None,
            samples=samples.get(task),
        )


def _direction(is_higher_better: object) -> Direction:
    if not isinstance(is_higher_better, bool):
        return "unknown"
    return "higher" if is_higher_better else "lower"


def _is_public(dataset: object) -> bool:
    """Whether the text is the name of a dataset, and not a path on the machine that ran the evaluation."""
    return isinstance(dataset, str) and not dataset.startswith(("/", "~", ".")) and "\\" not in dataset


@dataclass(frozen=True, slots=True)
class DocumentScore:
    """The values of one document by metric, for one filter. `key` identifies the document and its prompt."""

    key: str
    filter: str
    scores: Mapping[str, float]


def read_samples(lines: Iterable[bytes], label: str) -> Iterator[DocumentScore]:
    """Reads a samples file line by line. Raises `Invalid` with the number of the line."""
    for position, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            raise Invalid(f"line {position} of {label} is longer than {MAX_LINE >> 20} MiB")
        if not line.strip():
            continue
        try:
            document = json.loads(line, parse_constant=lambda name: None)
        except (ValueError, RecursionError):
            raise Invalid(f"line {position} of {label} is not JSON") from None
        if not isinstance(document, dict) or not isinstance(document.get("metrics"), list):
            raise Invalid(f"line {position} of {label} is not a document of lm-evaluation-harness")
        key = text(document.get("doc_hash")) or text(document.get("doc_id"))
        if key is None:
            raise Invalid(f"line {position} of {label} has neither doc_hash nor doc_id")
        scores = {
            name: value
            for name in document["metrics"]
            if isinstance(name, str) and (value := number(document.get(name))) is not None
        }
        yield DocumentScore(key, text(document.get("filter")) or "none", scores)


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file that arrives in chunks. A line that is too long is cut, and its reader refuses
    it.
    """
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > MAX_LINE:
            break
    yield rest
