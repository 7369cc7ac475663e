"""Modules without parameters in the models of common families: activations, dropouts, rotary embeddings.

A checkpoint does not show them. They were read from the classes of transformers 5.24; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from adaptry.bases.model_classes import body_attribute

_LLAMA = ("layers.*.mlp.act_fn", "rotary_emb")
_EXPERTS = ("layers.*.mlp.experts.act_fn", "rotary_emb")
_BERT = (
    "embeddings.dropout", "encoder.layer.*.attention.output.dropout",
    "encoder.layer.*.attention.self.dropout", "encoder.layer.*.intermediate.intermediate_act_fn",
    "encoder.layer.*.output.dropout", "pooler.activation",
)  # fmt: skip
_T5 = tuple(
    f"{side}.{end}"
    for side in ("decoder", "encoder")
    for end in (
        *("block.*.layer.*.DenseReluDense.act", "block.*.layer.*.DenseReluDense.dropout"),
        *("block.*.layer.*.dropout", "dropout"),
    )
)
PARAMETERLESS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "cohere",
            "gemma",
            "gemma2",
            "gemma3_text",
            "granite",
            "llama",
            "mistral",
            "olmo2",
            "qwen2",
            "qwen3",
        ),
        _LLAMA,
    ),
    **dict.fromkeys(("smollm3",), _LLAMA),
    **dict.fromkeys(("mixtral", "qwen3_moe"), _EXPERTS),
    **dict.fromkeys(("bert", "deberta-v2", "electra", "roberta", "xlm-roberta"), _BERT),
    **dict.fromkeys(("mt5", "t5"), _T5),
    "bart": ("decoder.layers.*.activation_fn", "encoder.layers.*.activation_fn"),
    "bloom": ("h.*.mlp.gelu_impl", "h.*.self_attention.attention_dropout"),
    "distilbert": (
        *("embeddings.dropout", "transformer.layer.*.attention.dropout"),
        *("transformer.layer.*.ffn.activation", "transformer.layer.*.ffn.dropout"),
    ),
    "falcon": ("h.*.mlp.act", "h.*.self_attention.attention_dropout", "rotary_emb"),
    "gpt2": ("drop", "h.*.attn.attn_dropout", "h.*.attn.resid_dropout", "h.*.mlp.act", "h.*.mlp.dropout"),
    "gpt_neox": (
        *("emb_dropout", "layers.*.mlp.act", "layers.*.post_attention_dropout"),
        *("layers.*.post_mlp_dropout", "rotary_emb"),
    ),
    "llava": (
        *("language_model.layers.*.mlp.act_fn", "language_model.rotary_emb", "multi_modal_projector.act"),
        "vision_tower.encoder.layers.*.mlp.activation_fn",
    ),
    "opt": ("decoder.layers.*.activation_fn",),
    "phi": ("embed_dropout", "layers.*.mlp.activation_fn", "layers.*.resid_dropout", "rotary_emb"),
    "phi3": (
        *("layers.*.mlp.activation_fn", "layers.*.resid_attn_dropout", "layers.*.resid_mlp_dropout"),
        "rotary_emb",
    ),
    "qwen2_moe": (*_EXPERTS, "layers.*.mlp.shared_expert.act_fn"),
    "stablelm": ("layers.*.dropout", *_LLAMA),
    "starcoder2": ("layers.*.mlp.act", "rotary_emb"),
}
"""Model type → names in the bare model, with `*` for numbers. A name applies only if the model has its
parent module (some have no pooler).
"""
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def parameterless_modules(model_type: str, modules: Iterable[str]) -> Iterator[str]:
    """The paths of such modules in the model with `modules`, each of which is next to others."""
    body = f"{body_attribute(model_type)}."
    ends: dict[str, list[str]] = {}
    for name in PARAMETERLESS.get(model_type, ()):
        around, _, end = name.rpartition(".")
        ends.setdefault(around, []).append(end)
    if "" in ends:
        paths = set(modules)
        is_inside = any(path.startswith(body) for path in paths)
        yield from (f"{body if is_inside else ''}{end}" for end in ends.pop(""))
        modules = paths
    for path in sorted(modules):
        for end in ends.get(_NUMBER.sub("*", path.removeprefix(body)), ()):
            yield f"{path}.{end}"
