"""The fields of PEFT's configs and their types, for all its methods.

`peft_fields.json` was read from the dataclasses of PEFT 0.21.2 (`PEFT_TYPE_TO_CONFIG_MAPPING`); a test
compares it with the installed PEFT. PEFT itself checks no types: a value of another type raises an error
later, or changes the adapter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_SCALES = frozenset(["alpha", "delora_lambda", "lora_alpha", "psoft_alpha", "randlora_alpha"])
"""Declared as integers, but only ever multiplied and divided: trainers write fractions."""
_NAMES = frozenset(
    [
        *("exclude_modules", "feedforward_modules", "layers_pattern", "modules_to_save", "target_modules"),
        "target_parameters",
    ]
)
"""For a name or a list of names, whatever the method declares."""
_MAY_BE_NULL = frozenset(
    [
        *("fan_in_fan_out", "inference_mode", "loftq_config", "runtime_config"),
        *("encoder_hidden_size", "token_dim"),  # PEFT uses the model's value
    ]
)
"""Without an effect if they are null."""
_FALSE_BY_DEFAULT = frozenset(["ADALORA", "LORA"])
"""Methods whose switches are false by default and are only tested for truth, so that null is the same. (The
exception, `init_lora_weights`, matters in training only.)
"""
_STRICT_START = frozenset(["BOFT", "OFT"])
"""Methods that refuse an `init_weights` other than true and false. The others only ask whether it is true."""

_WORDS: Mapping[str, str] = {
    "bool": "true or false", "dict": "a mapping", "float": "a number", "int": "a whole number",
    "list[int]": "a list of whole numbers", "list[list]": "a list of pairs", "list[str]": "a list of strings",
    "null": "null", "str": "a string",
}  # fmt: skip


@cache
def declared_types(method: str) -> Mapping[str, frozenset[str]]:
    """Field → types, for a method's name in capitals; empty for a method that PEFT does not have."""
    table = json.loads(Path(__file__).with_suffix(".json").read_bytes())
    if method not in table:
        return {}
    return {name: _widened(method, name, kinds) for name, kinds in {**table["*"], **table[method]}.items()}


def expected_type(method: str, field: str, value: object) -> str | None:
    """The type that PEFT expects for `field`, in words such as "a whole number"; None if `value` has this
    type, or if the method has no such field.
    """
    kinds = declared_types(method).get(field)
    if kinds is None or any(_has_kind(kind, value) for kind in kinds):
        return None
    others = {"null"} | ({"int"} if "float" in kinds else set())
    return " or ".join(_WORDS[kind] for kind in sorted(kinds - others))


def is_unread(fields: Mapping[str, Any], key: str) -> bool:
    """Whether PEFT never uses the value of the field, whatever its type: the group size of QA-LoRA in another
    LoRA, and an empty revision. (`Any`: JSON.)
    """
    if key == "qalora_group_size":
        return not fields.get("use_qalora")
    return key == "revision" and not fields.get(key)


def _widened(method: str, name: str, kinds: str) -> frozenset[str]:
    found = set(kinds.split("|"))
    if name in _SCALES:
        found.add("float")
    if name in _NAMES:
        found |= {"str", "list[str]", "null"}
    if name == "init_weights" and method not in _STRICT_START:
        found |= {"bool", "str", "null"}
    if name in _MAY_BE_NULL or ("bool" in found and method in _FALSE_BY_DEFAULT):
        found.add("null")
    return frozenset(found)


def _has_kind(kind: str, value: object) -> bool:
    match kind:
        case "null":
            return value is None
        case "bool":
            return isinstance(value, bool)
        case "int":
            return type(value) is int
        case "float":
            return type(value) in (int, float)
        case "str":
            return isinstance(value, str)
        case "dict":
            return isinstance(value, dict)
    inside = kind.removeprefix("list[").removesuffix("]")
    if not isinstance(value, list):
        return False
    return all(isinstance(each, list) if inside == "list" else _has_kind(inside, each) for each in value)
