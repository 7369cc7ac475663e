"""The encoding of values in columns: canonical JSON, compressed if it is long and never searched."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, cast

from adaptry.core.value import FrozenValue, to_json

if TYPE_CHECKING:
    from pydantic import BaseModel

Model = TypeVar("Model", bound="BaseModel | FrozenValue")

_CACHE_SIZE = 6  # decoded values
_MAX_CACHED_BYTES = 1 << 15  # bytes of each, compressed
_MAX_ENCODED, _LARGEST_ENCODED = 64, 2 << 10  # the same for encoded values
_ENCODED: dict[int, tuple[FrozenValue, bytes]] = {}
"""Encoded values by their identity: a spec that several versions share is encoded once. The value is kept
too, so that no other value can have its identity.
"""


def encode_model(value: BaseModel | FrozenValue) -> bytes:
    """Compressed JSON of a value; `decode_model` decodes it."""
    if not isinstance(value, FrozenValue):
        return zlib.compress(value.model_dump_json().encode(), level=1)
    found = _ENCODED.get(id(value))
    if found is not None:
        return found[1]
    data = zlib.compress(to_json(value).encode(), level=1)
    if len(data) <= _LARGEST_ENCODED:
        if len(_ENCODED) >= _MAX_ENCODED:
            _ENCODED.clear()
        _ENCODED[id(value)] = value, data
    return data


def decode_model(kind: type[Model], data: bytes) -> Model:
    """The value, which is immutable. A few are kept, since a program often reads the same ones again."""
    return _decoded(kind, data) if len(data) <= _MAX_CACHED_BYTES else _decode(kind, data)


def _decode(kind: type[Model], data: bytes) -> Model:
    return cast(Model, kind.model_validate_json(zlib.decompress(data)))


_decoded = cast("Callable[[type[Model], bytes], Model]", lru_cache(maxsize=_CACHE_SIZE)(_decode))


def encode_list(items: Iterable[str]) -> str:
    """A list of strings as the value of a text column."""
    return json.dumps(list(items), ensure_ascii=False)


def decode_list(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def encode_map(items: Mapping[str, str]) -> str:
    """A map of strings as the value of a text column."""
    return json.dumps(dict(items), ensure_ascii=False)


def encode_value(text: str) -> str:
    """A string as it is in the text of a list or map."""
    return json.dumps(text, ensure_ascii=False)


def decode_map(text: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in json.loads(text).items()}
