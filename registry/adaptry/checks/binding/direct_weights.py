"""Modules that a model uses in a way that PEFT's layers do not expect.

PEFT's layers change the result of calling a module. Some models read a module's weight themselves, so that
the adapted model answers as if it had not been adapted; only a merge changes the weight. In some Mamba models
PEFT refuses a few of these modules. And some modules do more than multiply or look up: they add an offset to
positions, normalise, or return several values, while PEFT's layer computes its update from the input as it
is.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from adaptry.bases.module_map import ExtraTarget
from adaptry.checks.binding.forced_ties import OTHER_INPUT
from adaptry.checks.binding.targets import is_head
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
    "detr": frozenset(["query_position_embeddings"]),
    "longcat_flash": frozenset(["classifier"]),
    "prophetnet": frozenset(["ngram_embeddings"]),
    "sam": frozenset(["iou_token", "mask_tokens", "no_mask_embed", "not_a_point_embed", "point_embed"]),
    "wavlm": frozenset(["q_proj", "k_proj", "v_proj", "out_proj"]),
}
"""The last names of modules, without numbers, by type of model (or of its part), as in transformers 5.24."""
_READ_ENDS: Mapping[str, tuple[str, ...]] = {"mobilebert": ("predictions.dense", "predictions.decoder")}
"""The ends of paths, if other modules have the same last names. MobileBERT concatenates the weights of its
two heads.
"""
_CALLED_IF_QUANTISED = frozenset(["falcon_mamba", "jamba"])
_DEPTHWISE = ("conv1d", "conv.conv")
"""The ends of the paths of convolutions over time in state-space and linear-attention models, which pass
their weights to a kernel. Other models have modules of these names that are not depthwise, and call them.
"""
_CALLED_CONVOLUTION = "ple.conv1d"
"""Qwen4's, which no kernel computes, since it is dilated."""
_SHARED = frozenset(["shared", "model.shared", "led.shared"])
"""The embedding of encoder-decoders. Both stacks call their own modules, whose weights are tied to it."""
_SHARED_BY_TYPE = {"prophetnet": frozenset(["word_embeddings", "prophetnet.word_embeddings"])}

_LEARNED_POSITIONS = (
    "autoformer", "bart", "bigbird_pegasus", "biogpt", "blenderbot", "blenderbot-small", "informer", "led",
    "marian", "mbart", "mvp", "opt", "pegasus", "plbart", "roformer", "time_series_transformer", "trocr",
)  # fmt: skip
_STRIDE_READERS = ("moss_transcribe_diarize_audio", "qwen2_audio_encoder", "voxtral_encoder")
"""Whisper's encoder in others, which reads the strides of its convolutions; PEFT's layer has none."""
_UNLIKE_PEFT: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_LEARNED_POSITIONS, ("embed_positions",)),
    "deepseek_v4": ("o_a_proj",),
    "dory": ("lm_head",),
    "inkling_text": ("embed_tokens",),
    "llama4_text": ("router",),
    **dict.fromkeys(("mobilenet_v1", "mobilenet_v2"), ("convolution",)),
    "phimoe": ("router",),
    "prophetnet": ("position_embeddings",),
    "fsmt": ("embed_positions",),
    "whisper": ("embed_positions", "encoder.conv1", "encoder.conv2"),
    **dict.fromkeys(_STRIDE_READERS, ("conv1", "conv2")),
    "voxtral_realtime_encoder": ("embedder.conv1", "embedder.conv2"),
}
"""The ends of paths by type of model, as in transformers 5.24: classes that derive from torch's and have a
`forward` of their own.
"""


def model_types(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The types of a model and its parts. (`Any`: a base's facts, or a config, are JSON.)"""
    parts = (facts, *facts.values())
    kinds = (part.get("model_type") for part in parts if isinstance(part, Mapping))
    return tuple(kind for kind in kinds if isinstance(kind, str))


def is_as_peft_expects(path: str, types: Sequence[str], shape: Sequence[int]) -> bool:
    """Whether a LoRA of the module at `path` gives the same answers in PEFT as after a merge."""
    is_refused = path.rpartition(".")[2] in _REFUSED and not _REFUSING_MODELS.isdisjoint(types)
    return not is_refused and not _is_read_directly(path, types, shape) and not _is_unlike_peft(path, types)


def refused_module(method: str, model_type: str, selected: Iterable[str]) -> str | None:
    """Why PEFT refuses a module that the config selects, at one of these paths; None if it does not."""
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
    """The paths of the given adapted modules (with their weights' shapes) that the model never calls."""
    types = model_types(facts)
    if facts.get("quantization"):
        types = tuple(kind for kind in types if kind not in _CALLED_IF_QUANTISED)
    return tuple(path for path, shape in adapted if _is_read_directly(path, types, shape))


def modules_unlike_peft(facts: Mapping[str, Any], adapted: Iterable[str]) -> tuple[str, ...]:
    """The paths of these adapted modules for which PEFT's unmerged adapter computes something other than a
    merge, or raises an error.
    """
    types = model_types(facts)
    return tuple(path for path in adapted if _is_unlike_peft(path, types))


def is_shared_embedding(path: str, types: Sequence[str]) -> bool:
    """Whether the module only holds the weight of the embeddings of both stacks."""
    return path in _SHARED or any(path in _SHARED_BY_TYPE.get(kind, ()) for kind in types)


def bypassed_attentions(linears: Mapping[str, str], tensors: Container[str]) -> tuple[str, ...]:
    """The paths of the adapted linear modules (with the names of their weights) that are the output
    projection of torch's `MultiheadAttention`, which reads their weight directly. PEFT's adaptation has an
    effect only if the config selects the attention itself.
    """
    end = ".out_proj.weight"
    return tuple(
        path
        for path, weight in linears.items()
        if weight.endswith(end) and f"{weight.removesuffix(end)}.in_proj_weight" in tensors
    )


def bypassed_rows(
    facts: Mapping[str, Any], trained: Mapping[str, tuple[int, ...]], method: str
) -> tuple[str, ...]:
    """The embeddings, among those at these paths (with their trained rows), that the model never calls. If a
    model reads the weight, PEFT's layer for rows next to another method returns the trained values, but
    TRAINABLE_TOKENS does not. PEFT does not tie the rows of an embedding if the head has other rows.
    """
    types, is_alone = model_types(facts), method == "trainable_tokens"
    of_ends = {rows for path, rows in trained.items() if is_head(path) or is_shared_embedding(path, types)}
    is_other = not OTHER_INPUT.isdisjoint(types) or len(of_ends) > 1
    return tuple(
        path
        for path in trained
        if (is_other if is_shared_embedding(path, types) else is_alone and _has_direct_name(path, types))
    )


def is_unused_copy(facts: Mapping[str, Any], extra: ExtraTarget) -> bool:
    """Whether the weight is a copy of a module that the model never calls. PEFT puts the copy in the module's
    place, so the weight itself is unchanged, even in a merge. A copy with more rows shows a resized
    vocabulary.
    """
    path = extra.extra.target.removesuffix(".weight")
    is_same = extra.extra.kind == "module" and extra.extra.shape == extra.weight.shape
    return is_same and is_shared_embedding(path, model_types(facts))


def _is_read_directly(path: str, types: Sequence[str], shape: Sequence[int]) -> bool:
    if len(shape) == 3 and shape[1] == 1 and ends_with(path, _DEPTHWISE):
        return not ends_with(path, (_CALLED_CONVOLUTION,))
    return is_shared_embedding(path, types) or _has_direct_name(path, types)


def _has_direct_name(path: str, types: Sequence[str]) -> bool:
    around, _, name = path.rpartition(".")
    name = around.rpartition(".")[2] if name.isdecimal() else name
    return any(
        name in _READ_DIRECTLY.get(kind, ()) or ends_with(path, _READ_ENDS.get(kind, ())) for kind in types
    )


def _is_unlike_peft(path: str, types: Sequence[str]) -> bool:
    return any(ends_with(path, _UNLIKE_PEFT.get(kind, ())) for kind in types)


def ends_with(path: str, ends: Iterable[str]) -> bool:
    """Whether the module's path is one of these, or ends with one after a dot."""
    return any(path == end or path.endswith(f".{end}") for end in ends)
