"""Facts about a base from its `config.json` that its shapes do not show: heads, rope, norms, tying.

transformers 4 and 5 write the same model differently (`rope_theta` and `rope_scaling`, or `rope_parameters`;
defaults present or absent), and model families use different names for the same number. Facts are a uniform
form, in which bases are compared and adapters checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# One name per number; the first of the families' names that the config has is used.
_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim", "d_kv"),
    "vocab_size": ("vocab_size",),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
    "norm_eps": ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
}
_TEXT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "act": ("hidden_act", "hidden_activation", "activation_function", "feed_forward_proj"),
}
_PARTS = ("text_config", "vision_config", "audio_config", "encoder", "decoder", "llm_config")
_ROPE_THETA = ("rope_theta", "rotary_emb_base")
_ROPE_PART = ("partial_rotary_factor", "rotary_pct")
_DEFAULT_THETA = 10_000

_NOT_IDENTITY = frozenset(["architectures", "tie_word_embeddings", "quantization"])


def facts_of(config: Mapping[str, Any], is_tied: bool, quantised: str | None = None) -> dict[str, Any]:
    """The facts of a config as JSON values, with defaults (`Any`: the fields depend on the model).

    `is_tied` and `quantised` (the method, in words) are facts that the caller knows from the weights. If no
    weights are recognised as packed, the config's quantisation is used.
    """
    facts = _part_facts(config)
    facts["tie_word_embeddings"] = is_tied
    names = config.get("architectures")
    if isinstance(names, list):
        facts["architectures"] = [name for name in names if isinstance(name, str)]
    quantization = config.get("quantization_config")
    if quantised:
        facts["quantization"] = quantised
    elif isinstance(quantization, dict):
        facts["quantization"] = str(quantization.get("quant_method") or "unknown")[:40]
    return facts


def identity_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that are equal in all copies of a model. The head with which a copy was saved, and tying, are
    not among them: the tensors show both.
    """
    return {key: value for key, value in facts.items() if key not in _NOT_IDENTITY}


def _part_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    kind = config.get("model_type") or config.get("_class_name")  # the latter in a part of a pipeline
    facts: dict[str, Any] = {"model_type": str(kind or "unknown")[:64]}
    for fact, words in _NUMBERS.items():
        value = _first(config, words, int | float)
        if value is not None:
            facts[fact] = _number(value)
    for fact, words in _TEXT_FIELDS.items():
        word = _first(config, words, str)
        if word is not None:
            facts[fact] = word
    heads = facts.get("heads")
    if isinstance(heads, int) and heads > 0:
        facts.setdefault("kv_heads", heads)
        if "hidden_size" in facts:
            facts.setdefault("head_dim", facts["hidden_size"] // heads)
    facts["rope"] = _rope(config)
    for part in _PARTS:
        if isinstance(config.get(part), dict):
            facts[part] = _part_facts(config[part])
    return facts


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary embeddings in transformers 5's form; models with two kinds of layers have an entry for each."""
    written = config.get("rope_parameters")
    theta = _first(config, _ROPE_THETA, int | float)
    part = _first(config, _ROPE_PART, int | float)
    if isinstance(written, dict) and any(isinstance(value, dict) for value in written.values()):
        kinds = {kind: value for kind, value in written.items() if isinstance(value, dict)}
        return {kind: _rope_kind(value, theta, part) for kind, value in kinds.items()}
    if isinstance(written, dict):
        return _rope_kind(written, theta, part)
    scaling = config.get("rope_scaling")
    whole = _rope_kind(scaling if isinstance(scaling, dict) else {}, theta, part)
    local = config.get("rope_local_base_freq")
    if isinstance(local, int | float):
        return {"full_attention": whole, "sliding_attention": _rope_kind({}, local, part)}
    return whole


def _rope_kind(written: Mapping[str, Any], theta: Any, part: Any) -> dict[str, Any]:
    kind = str(written.get("rope_type") or written.get("type") or "default")
    rope: dict[str, Any] = {
        "rope_type": kind,
        "rope_theta": _number(written.get("rope_theta", theta if theta is not None else _DEFAULT_THETA)),
        "partial": _number(written.get("partial_rotary_factor", part if part is not None else 1)),
    }
    for key, value in written.items():
        if key in ("rope_type", "type", "rope_theta", "partial_rotary_factor"):
            continue
        if isinstance(value, list):
            rope[key] = [_number(item) for item in value]
        elif value is not None:
            rope[key] = _number(value)
    return rope


def _first(config: Mapping[str, Any], words: tuple[str, ...], kind: Any) -> Any:
    """The value of the first of `words` whose value is of `kind` (a type or a union of types)."""
    for word in words:
        value = config.get(word)
        if isinstance(value, kind) and not isinstance(value, bool):
            return value
    return None


def _number(value: Any) -> Any:
    """The number in one form, so that 10000.0 and 10000 have the same digest."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value
