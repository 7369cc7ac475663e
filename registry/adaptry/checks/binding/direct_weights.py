"""Modules that a model uses in another way than PEFT's layers expect.

PEFT's layers change what a module returns when it is called. Some models read a module's weight themselves,
so that the adapted model answers as if it had not been adapted; only a merge changes the weight. In some
Mamba models PEFT refuses a few of these modules. And some modules do more than multiply or look up: they add
an offset to positions, normalise, or return several values, while PEFT's layer computes its update from the
input as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adaptry.checks.finding_text import fold_layer_numbers

_REFUSED = frozenset(["out_proj", "conv1d"])
_REFUSING_METHODS = frozenset(["lora", "adalora", "randlora"])
_REFUSING_MODELS = frozenset(["falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"])
"""The modules, methods and models of PEFT 0.21's `_check_lora_target_modules_mamba`."""

_DELTAS, _POSITIONS = frozenset(["dt_proj"]), frozenset(["embed_positions"])
_RELATIVE = frozenset(["rel_embeddings"])
_READ_DIRECTLY: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("falcon_mamba", "jamba", "mamba"), _DELTAS),
    **dict.fromkeys(("deberta", "deberta-v2", "sew-d"), _RELATIVE),
    **dict.fromkeys(
        ("audioflamingo3_encoder", "moss_transcribe_diarize_audio", "qwen2_audio_encoder", "voxtral_encoder"),
        _POSITIONS,
    ),
    "longcat_flash": frozenset(["classifier"]),
    "prophetnet": frozenset(["ngram_embeddings"]),
    "wavlm": frozenset(["q_proj", "k_proj", "v_proj", "out_proj"]),
}
"""The last names of modules by type of model (or of its part), as in transformers 5.24."""
_CALLED_IF_QUANTISED = frozenset(["falcon_mamba", "jamba"])
_DEPTHWISE = ("conv1d", "conv.conv")
"""The ends of the paths of convolutions over time in state-space and linear-attention models, which pass
their weights to a kernel. Other models have modules of these names that are not depthwise, and call them.
"""
_CALLED_CONVOLUTION = "ple.conv1d"
"""Qwen4's, which no kernel computes, since it is dilated."""
_SHARED = frozenset(["shared", "model.shared", "led.shared"])
"""The embedding of encoder-decoders. Both stacks call modules of their own, whose weights are tied to it."""
_SHARED_BY_TYPE = {"prophetnet": frozenset(["word_embeddings", "prophetnet.word_embeddings"])}

_LEARNED_POSITIONS = (
    "autoformer", "bart", "bigbird_pegasus", "biogpt", "blenderbot", "blenderbot-small", "informer", "led",
    "marian", "mbart", "mvp", "opt", "pegasus", "plbart", "roformer", "time_series_transformer", "trocr",
)  # fmt: skip
_UNLIKE_PEFT: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_LEARNED_POSITIONS, ("embed_positions",)),
    "deepseek_v4": ("o_a_proj",),
    "dory": ("lm_head",),
    "inkling_text": ("embed_tokens",),
    "llama4_text": ("router",),
    "phimoe": ("router",),
    "prophetnet": ("position_embeddings",),
    "whisper": ("decoder.embed_positions",),
}
"""The ends of paths by type of model, as in transformers 5.24: classes that derive from torch's and have a
`forward` of their own.
"""


def model_types(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The types of a model and of its parts. (`Any`: a base's facts, or a config, are JSON.)"""
    parts = (facts, *facts.values())
    kinds = (part.get("model_type") for part in parts if isinstance(part, Mapping))
    return tuple(kind for kind in kinds if isinstance(kind, str))


def is_as_peft_expects(path: str, types: Sequence[str], shape: Sequence[int]) -> bool:
    """Whether a LoRA of the module at `path` gives in PEFT the same answers as its merge."""
    is_refused = path.rpartition(".")[2] in _REFUSED and not _REFUSING_MODELS.isdisjoint(types)
    return not is_refused and not _is_read_directly(path, types, shape) and not _is_unlike_peft(path, types)


def refused_module(method: str, model_type: str, selected: Iterable[str]) -> str | None:
    """Why PEFT refuses a module at one of these paths, which the config selects, if it does."""
    if method not in _REFUSING_METHODS or model_type not in _REFUSING_MODELS:
        return None
    path = next((path for path in selected if path.rpartition(".")[2] in _REFUSED), None)
    if path is None:
        return None
    (name,) = fold_layer_numbers([path])
    return f"the config selects {name}, which PEFT does not adapt in models of type {model_type}"


def bypassed_modules(
    facts: Mapping[str, Any], adapted: Iterable[tuple[str, Sequence[int]]]
) -> tuple[str, ...]:
    """The paths of these adapted modules (with their weights' shapes) that the model never calls."""
    types = model_types(facts)
    if facts.get("quantization"):
        types = tuple(kind for kind in types if kind not in _CALLED_IF_QUANTISED)
    return tuple(path for path, shape in adapted if _is_read_directly(path, types, shape))


def modules_unlike_peft(facts: Mapping[str, Any], adapted: Iterable[str]) -> tuple[str, ...]:
    """The paths of these adapted modules for which PEFT's unmerged adapter computes something else than a
    merge, or raises an error.
    """
    types = model_types(facts)
    return tuple(path for path in adapted if _is_unlike_peft(path, types))


def is_shared_embedding(path: str, types: Sequence[str]) -> bool:
    """Whether the module only holds the weight of the embeddings of both stacks."""
    return path in _SHARED or any(path in _SHARED_BY_TYPE.get(kind, ()) for kind in types)


def _is_read_directly(path: str, types: Sequence[str], shape: Sequence[int]) -> bool:
    if len(shape) == 3 and shape[1] == 1 and _ends_with(path, _DEPTHWISE):
        return not _ends_with(path, (_CALLED_CONVOLUTION,))
    name = path.rpartition(".")[2]
    return is_shared_embedding(path, types) or any(name in _READ_DIRECTLY.get(kind, ()) for kind in types)


def _is_unlike_peft(path: str, types: Sequence[str]) -> bool:
    return any(_ends_with(path, _UNLIKE_PEFT.get(kind, ())) for kind in types)


def _ends_with(path: str, ends: Iterable[str]) -> bool:
    return any(path == end or path.endswith(f".{end}") for end in ends)
