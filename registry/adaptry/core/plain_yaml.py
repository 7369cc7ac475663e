"""YAML as untrusted text: what JSON can express, or an error.

YAML aliases are refused, since a few of them can expand to a document of any size. Nesting and values are
counted before the first value is created. Dates and other types that JSON lacks become text. A short text is
parsed here, by libyaml if PyYAML has it; a longer one in a child process (`processes.yaml_reader`), since 64
KiB can take a second of processor time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Any

import yaml

from adaptry.core.errors import Invalid

SHORT = 1 << 10
"""Longest text, in characters, that is parsed in the caller's process: 7 ms at worst."""
_MAX_DEPTH = 16
_MAX_VALUES = 20_000
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same result, ten times as fast


def loads_in_process(text: str, label: str) -> Any:
    """The document in `text`. (`Any`: YAML has no type.) Raises `Invalid`, with `label` and the line."""
    depth = values = 0
    try:
        for event in yaml.parse(text, _LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise Invalid(f"{label} has a YAML alias (*{event.anchor}); write out what it stands for")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            values += isinstance(event, yaml.NodeEvent)
            if depth > _MAX_DEPTH:
                raise Invalid(f"{label} is nested deeper than {_MAX_DEPTH} levels")
            if values > _MAX_VALUES:
                raise Invalid(f"{label} has more than {_MAX_VALUES:,} values")
        return _plain(yaml.load(text, _LOADER))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise Invalid(f"{label} is not YAML: {' '.join(str(error).split())[:300]}") from None


def _plain(value: Any) -> Any:
    """The value in types that JSON has. (`Any`: YAML's values.)"""
    match value:
        case None | bool() | str():
            return value
        case int() if value.bit_length() <= 64:
            return value
        case float() if math.isfinite(value):
            return value
        case float() | int():
            return "a number too large" if isinstance(value, int) else str(value)
        case date():
            return value.isoformat()
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple() | set():
            return [_plain(inner) for inner in value]
    raise ValueError(f"a value of kind {type(value).__name__} is not allowed in metadata")
