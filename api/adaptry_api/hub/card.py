"""A model card: the YAML at the head of a README, and the fields of it that a registry keeps.

The text is untrusted: it is parsed within limits (`yaml_reader`) into plain JSON. A README without such a
head is an empty card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.processes import yaml_reader
from adaptry.core.readme_head import README_HEAD
from adaptry.registry.records import MetricName, Tag

README = "README.md"
MAX_HEAD = 64 << 10
_MAX_TAGS = 64
_TAG = TypeAdapter[str](Tag)
_METRIC = TypeAdapter[str](MetricName)


@dataclass(frozen=True, slots=True)
class Card:
    """`data` is the head as plain JSON. (`Any`: cards are free-form.)"""

    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base_models(self) -> tuple[str, ...]:
        return _texts(self.data.get("base_model"))

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that an adapter can have, in the order of the card, with the licence as one of them."""
        licence = [f"license:{text.lower()}" for text in _texts(self.data.get("license"))]
        written = dict.fromkeys([*_texts(self.data.get("tags")), *licence])
        return tuple(
            tag for tag in written if _is_valid_text(_TAG, tag) and not tag.startswith("base_model:")
        )[:_MAX_TAGS]

    @property
    def metrics(self) -> dict[str, float]:
        """The results in `model-index`, by type, or by dataset and type if the type is ambiguous."""
        found = [(data, kind, value) for data, kind, value in _results(self.data.get("model-index"))]
        kinds = Counter(kind for _, kind, _ in found)
        named = {
            kind if kinds[kind] == 1 else f"{data}/{kind}".replace(" ", "_"): value
            for data, kind, value in found
        }
        return {name: value for name, value in named.items() if _is_valid_text(_METRIC, name)}


def read_card(readme: bytes) -> Card:
    """The card in a README. Raises `Invalid` with the fault's line, and `Unavailable` (`yaml_reader`)."""
    try:
        text = readme.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"{README} is not UTF-8 text (byte {error.start})") from None
    match = README_HEAD.match(text)
    if match is None:
        return Card()
    head = match[2]
    if len(head) > MAX_HEAD:
        raise Invalid(f"the head of {README} is {len(head):,} characters; the limit is {MAX_HEAD:,}")
    data = yaml_reader.loads(head, f"the head of {README}")
    if data is None:
        return Card()
    if not isinstance(data, dict):
        raise Invalid(f"the head of {README} is not a mapping such as `license: mit`")
    return Card(data)


def _texts(value: object) -> tuple[str, ...]:
    """The texts of a field that contains a text or a list of texts."""
    several = value if isinstance(value, list) else [value]
    return tuple(text for text in several if isinstance(text, str) and text)


def _results(index: object) -> Iterator[tuple[str, str, float]]:
    """Dataset, type and value of every finite result; malformed results are skipped."""
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


def _is_valid_text(kind: TypeAdapter[str], text: str) -> bool:
    try:
        kind.validate_python(text)
    except ValidationError:
        return False
    return True
