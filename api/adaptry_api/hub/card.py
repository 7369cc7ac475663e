"""A model card: the YAML at the head of a README, and what of it a registry keeps.

The text is untrusted: it is read within limits (`yaml_reader`) and comes out as plain JSON. A README without
such a head is a card that says nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from adaptry.core.errors import Invalid
from adaptry.core.processes import yaml_reader
from adaptry.registry.records import MetricName, Tag

README = "README.md"
MAX_HEAD = 64 << 10
_MOST_TAGS = 64
# The same expression as in the Hub's clients.
_HEAD = re.compile(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))")
_TAG = TypeAdapter[str](Tag)
_METRIC = TypeAdapter[str](MetricName)


@dataclass(frozen=True, slots=True)
class Card:
    """`data` is the head as plain JSON. (`Any`: people write what they like.)"""

    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base_models(self) -> tuple[str, ...]:
        return _texts(self.data.get("base_model"))

    @property
    def tags(self) -> tuple[str, ...]:
        """Those that an adapter can have, in the order of the card, and its licence as one."""
        licence = [f"license:{text}" for text in _texts(self.data.get("license"))]
        written = dict.fromkeys([*_texts(self.data.get("tags")), *licence])
        return tuple(tag for tag in written if _is(_TAG, tag) and not tag.startswith("base_model:"))[
            :_MOST_TAGS
        ]

    @property
    def metrics(self) -> dict[str, float]:
        """The results in `model-index`: by type, or by data set and type where the type alone is no name."""
        found = [(data, kind, value) for data, kind, value in _results(self.data.get("model-index"))]
        kinds = Counter(kind for _, kind, _ in found)
        named = {
            kind if kinds[kind] == 1 else f"{data}/{kind}".replace(" ", "_"): value
            for data, kind, value in found
        }
        return {name: value for name, value in named.items() if _is(_METRIC, name)}


def read_card(readme: bytes) -> Card:
    """The card in a README. Raises `Invalid` with the fault's line, and `Unavailable` (`yaml_reader`)."""
    try:
        text = readme.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"{README} is not UTF-8 text (byte {error.start})") from None
    match = _HEAD.match(text)
    if match is None:
        return Card()
    head = match[2]
    if len(head) > MAX_HEAD:
        raise Invalid(f"the head of {README} is {len(head):,} characters; at most {MAX_HEAD:,} are read")
    data = yaml_reader.loads(head, f"the head of {README}")
    if data is None:
        return Card()
    if not isinstance(data, dict):
        raise Invalid(f"the head of {README} is not a mapping (license: mit, and so on)")
    return Card(data)


def _texts(value: object) -> tuple[str, ...]:
    """A text, or several in a list."""
    several = value if isinstance(value, list) else [value]
    return tuple(text for text in several if isinstance(text, str) and text)


def _results(index: object) -> Iterator[tuple[str, str, float]]:
    """Data set, kind and value of every finite result; what is not of that form says nothing."""
    for model in _mappings(index):
        for result in _mappings(model.get("results")):
            data = result.get("dataset")
            name = data.get("type") or data.get("name") if isinstance(data, dict) else None
            for metric in _mappings(result.get("metrics")):
                kind, value = metric.get("type"), metric.get("value")
                if isinstance(kind, str) and isinstance(value, int | float) and not isinstance(value, bool):
                    yield str(name or "results"), kind, float(value)


def _mappings(value: object) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _is(kind: TypeAdapter[str], text: str) -> bool:
    try:
        kind.validate_python(text)
    except ValidationError:
        return False
    return True
