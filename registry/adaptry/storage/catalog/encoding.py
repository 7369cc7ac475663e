"""How values lie in columns: JSON in one spelling, compressed where it is long and never searched."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)


def packed(value: BaseModel) -> bytes:
    """Compressed JSON of a value, to be read by `unpacked`."""
    return zlib.compress(value.model_dump_json().encode(), level=1)


def unpacked(kind: type[Model], data: bytes) -> Model:
    return kind.model_validate_json(zlib.decompress(data))


def listed(items: Iterable[str]) -> str:
    """A list of texts as a column."""
    return json.dumps(list(items), ensure_ascii=False)


def unlisted(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def mapped(items: Mapping[str, str]) -> str:
    """A map of texts as a column."""
    return json.dumps(dict(items), ensure_ascii=False)


def unmapped(text: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in json.loads(text).items()}
