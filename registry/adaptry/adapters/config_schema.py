"""The types of a config's fields, as PEFT 0.21 writes them for any method, and the names of LoRA's fields.

A field of another type is refused before any code interprets it (`"use_rslora": "yes"` is true for one
loader and false for another). A field with an unknown name is reported by the checks, since PEFT drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adaptry.adapters.peft_fields import declared_types, is_unread
from adaptry.core.errors import InvalidConfig

LORA_FIELDS = frozenset(
    [
        *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
        *("inference_mode", "r", "lora_alpha", "lora_dropout", "bias", "fan_in_fan_out", "init_lora_weights"),
        *("target_modules", "exclude_modules", "target_parameters", "modules_to_save", "layers_to_transform"),
        *("layers_pattern", "rank_pattern", "alpha_pattern", "trainable_token_indices", "layer_replication"),
        *("use_rslora", "use_dora", "use_qalora", "qalora_group_size", "use_bdlora", "lora_bias"),
        *(
            "megatron_config",
            "megatron_core",
            "runtime_config",
            "ensure_weight_tying",
            "target_modules_to_tie",
        ),
        *(
            "loftq_config",
            "eva_config",
            "corda_config",
            "lora_ga_config",
            "velora_config",
            "monteclora_config",
        ),
        *("arrow_config", "kasa_config", "alora_invocation_tokens"),
        *("enable_lora", "merge_weights"),  # up to PEFT 0.3
        "unsloth_fixed",  # written by Unsloth; it has no effect
    ]
)

_FLAGS = (
    *("use_rslora", "use_dora", "use_qalora", "lora_bias", "fan_in_fan_out", "inference_mode"),
    "ensure_weight_tying",
)
_TEXTS = ("task_type", "base_model_name_or_path", "revision", "peft_version")
_BIASES = ("none", "all", "lora_only")
_MAX_LAYERS = 1024


def check_method(fields: Mapping[str, Any]) -> None:
    """Raises `InvalidConfig` if `peft_type` is not a string, or a number or flag has another type: PEFT
    treats the string "false" as true. (`Any`, here and below: JSON.)
    """
    _expect(fields, "peft_type", lambda value: isinstance(value, str), 'a string such as "LORA"')
    types = declared_types(str(fields.get("peft_type", "")).upper())
    for key in fields.keys() & types.keys():
        if is_unread(fields, key):
            continue
        if types[key] <= {"bool", "null"}:
            _expect(fields, key, lambda value: isinstance(value, bool), "true or false")
        elif types[key] <= {"int", "float", "null"} and key != "r":
            _expect(fields, key, lambda value: type(value) in (int, float), "a number")


def check_lora(fields: Mapping[str, Any]) -> None:
    """Raises `InvalidConfig` for the first field with a type unknown to PEFT's LoRA. Ranks and scales are
    checked when they are read.
    """
    for key in _FLAGS:
        _expect(fields, key, lambda value: isinstance(value, bool), "true or false")
    for key in _TEXTS:
        if is_unread(fields, key):
            continue
        _expect(fields, key, lambda value: isinstance(value, str), "a string")
    for key in ("rank_pattern", "alpha_pattern"):
        _expect(fields, key, lambda value: isinstance(value, dict), "a mapping of patterns to numbers")
    _expect(fields, "bias", _BIASES.__contains__, "none, all or lora_only")
    _expect(
        fields, "init_lora_weights", lambda value: isinstance(value, bool | str), "true, false or a method"
    )
    _expect(fields, "layers_to_transform", _is_layers, "a layer's number or a list of them")
    _expect(
        fields,
        "layer_replication",
        _is_replication,
        f"a list of [first, end] pairs of layers that make at most {_MAX_LAYERS:,} layers together",
    )


def _expect(fields: Mapping[str, Any], key: str, is_right: Callable[[Any], bool], what: str) -> None:
    value = fields.get(key)
    if value is not None and not is_right(value):
        raise InvalidConfig(
            f"adapter_config.json: {key} must be {what}, not {str(value)[:40]!a}; correct it,"
            " or save the adapter again"
        )


def _is_number(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_layers(value: object) -> bool:
    return _is_number(value) or (isinstance(value, list) and all(map(_is_number, value)))


def _is_replication(value: object) -> bool:
    """Whether the value is a list of pairs with a bounded sum; a loader builds that many layers."""
    if not isinstance(value, list):
        return False
    for pair in value:
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) and pair[0] < pair[1]
        ):
            return False
    layers: int = sum(end - first for first, end in value)
    return layers <= _MAX_LAYERS
