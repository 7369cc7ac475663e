"""A parsed results file: its values, and facts about the whole run.

Readers are pure functions of bytes. They accept programs' unmodified files. A malformed file raises `Invalid`
with a sentence, and the size of files is limited.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.evidence.values import MAX_TEXT, MAX_VALUES, EvidenceFile, EvidenceFormat, EvidenceValue
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.validation import validated

MAX_FILE = 32 << 20
"""Bytes of a results file."""
_LIMITS = strictjson.JsonLimits(size=MAX_FILE, depth=64, nodes=2_000_000)


@dataclass(frozen=True, slots=True)
class ParsedResults:
    """The contents of a results file.

    `revision` is the commit or digest of the adapter that the file states, empty if it states none.
    """

    format: EvidenceFormat
    values: tuple[EvidenceValue, ...]
    harness: str | None = None
    harness_version: str | None = None
    harness_commit: str | None = None
    chat_template: str | None = None
    revision: str = ""

    def evidence_file(self, digest: Digest) -> EvidenceFile:
        """The file in the form that is added to a version; `digest` is that of its bytes."""
        return EvidenceFile(
            digest=digest,
            format=self.format,
            harness=self.harness,
            harness_version=self.harness_version,
            harness_commit=self.harness_commit,
            chat_template=self.chat_template,
            values=self.values,
        )


def read_json(data: bytes, label: str) -> Mapping[str, Any]:
    """The object in a JSON file. (`Any`: JSON.) Raises `Invalid`."""
    document = strictjson.loads(data, _LIMITS, label, allow_nan=True)
    if not isinstance(document, dict):
        raise Invalid(f"{label} is not a JSON object")
    return document


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one. (`Any`: JSON.)"""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """The items of a list that are mappings. (`Any`: JSON.)"""
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def number(value: object) -> float | None:
    """The value if it is a finite number, else None; `true` is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def count(value: object) -> int | None:
    """The value if it is a whole number that is not negative, else None."""
    found = number(value)
    return int(found) if found is not None and found >= 0 and found == int(found) else None


def text(value: object) -> str | None:
    """A name or version as one line of text, cut to a label's maximum length; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    words = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return words[:MAX_TEXT].strip() or None


def measured(**fields: object) -> EvidenceValue:
    """A measured value. Raises `Invalid` with the field that is wrong."""
    return validated(EvidenceValue, None, **fields)


def require_values(values: Iterable[EvidenceValue], label: str) -> tuple[EvidenceValue, ...]:
    """Raises `Invalid` if the file has no values, or too many."""
    found = tuple(dict.fromkeys(values))
    if not found:
        raise Invalid(f"{label} has no metric with a finite value")
    if len(found) > MAX_VALUES:
        raise Invalid(f"{label} has {len(found):,} values; at most {MAX_VALUES:,} per file are accepted")
    return found


def downsample(curve: Sequence[EvidenceValue], maximum: int) -> list[EvidenceValue]:
    """Returns at most `maximum` points of a curve, evenly chosen; the last one is included."""
    if len(curve) <= maximum:
        return list(curve)
    chosen = (
        {round(index * (len(curve) - 1) / (maximum - 1)) for index in range(maximum)} if maximum > 1 else {-1}
    )
    return [curve[index] for index in sorted(chosen)]


def curves(points: Iterable[EvidenceValue]) -> list[EvidenceValue]:
    """The points of all curves of a file, so that together they fit: each curve keeps the same number."""
    by_metric: dict[tuple[str | None, str], list[EvidenceValue]] = {}
    for point in points:
        by_metric.setdefault((point.task, point.metric), []).append(point)
    maximum = max(1, MAX_VALUES // max(1, len(by_metric)))
    return [point for curve in by_metric.values() for point in downsample(curve, maximum)]
