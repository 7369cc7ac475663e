"""The types that PEFT declares for its configs' fields, as `adapters/peft_fields.json` stores them.

.venv/bin/python -m tests.methods.peft_config_types > registry/adaptry/adapters/peft_fields.json
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
import types
import typing
from collections import Counter
from typing import Any, Literal, Union

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

_NAMES: dict[Any, str] = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}


def declared_by_peft() -> dict[str, dict[str, str]]:
    """Field → types for each method; under "*", those fields that all methods have with the same types."""
    found = {
        kind.value: {
            name: "|".join(sorted(set(_kinds(hint))))
            for name, hint in typing.get_type_hints(config).items()
            if name in config.__dataclass_fields__
        }
        for kind, config in sorted(PEFT_TYPE_TO_CONFIG_MAPPING.items())
    }
    counts = Counter(item for fields in found.values() for item in fields.items())
    shared = {name: kinds for (name, kinds), count in counts.items() if count == len(found)}
    own = {
        method: {name: kinds for name, kinds in sorted(fields.items()) if name not in shared}
        for method, fields in found.items()
    }
    return {"*": dict(sorted(shared.items())), **own}


def _kinds(hint: Any) -> list[str]:
    """(`Any`: a type as `typing` represents it.)"""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return [kind for each in inside for kind in _kinds(each)]
    if origin is Literal:
        return [_NAMES[type(value)] for value in inside]
    if origin is list:
        (each,) = _kinds(inside[0])
        return [f"list[{each}]"]
    if origin in (dict, tuple) or hint in (dict, tuple):
        return ["list" if tuple in (origin, hint) else "dict"]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return ["str"]
    return ["dict" if dataclasses.is_dataclass(hint) else _NAMES[hint]]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(declared_by_peft(), indent=1) + "\n")
