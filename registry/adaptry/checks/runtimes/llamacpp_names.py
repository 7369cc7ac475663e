"""Names of modules that llama.cpp's converter treats as the same tensor, if an adapter may have them.

Its table (`gguf-py/gguf/tensor_mapping.py`) has the names of all model families, regardless of the base.
Queries and keys have only names that end in `q_proj` or `k_proj`: the converter permutes their rows by that
name (`conversion/llama.py · modify_tensors`), so under others they would be loaded in the wrong order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from adaptry.adapters.methods.extras import PREFIX

REMOVED_PARTS = (PREFIX, "language_model.")
"""Parts that it first removes from a name (`get_base_tensor_name`, `filter_tensors`)."""

_TOWERS = re.compile(
    r"(?:mlp|(?:vit|vpm|siglip2|conformer|merger|resampler|sound_encoder|sound_projection"
    r"|speech_embeddings)\.)"
    r"|.*(?:(?:visual|vision|audio|talker|token2wav|code2wav|projector|patch_merger|patch_merge_mlp)\."
    r"|vision_|audio_|pre_mm_projector_norm|image_newline|view_seperator|patch_embed|model\.connector\.)"
)
"""Tensors of towers and connectors, which it leaves out (`TextModel.filter_tensors`)."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "self_attn.q_proj": ("attention.q_proj",),
    "self_attn.k_proj": ("attention.k_proj",),
    "self_attn.v_proj": ("attention.v_proj",),
    "self_attn.o_proj": (
        "self_attn.dense", "self_attn.out_proj", "self_attn.linear_attn", "attention.dense",
        "attention.o_proj",
    ),
    "mlp.gate_proj": ("feed_forward.w1", "feed_forward.gate_proj"),
    "mlp.up_proj": (
        "mlp.fc1", "mlp.c_fc", "mlp.dense_h_to_4h", "feed_forward.w3", "feed_forward.up_proj",
    ),
    "mlp.down_proj": (
        "mlp.fc2", "mlp.c_proj", "mlp.dense_4h_to_h", "feed_forward.w2", "feed_forward.down_proj",
    ),
}  # fmt: skip
"""In a layer (`model.layers.N.`): a name → other names of the same tensor."""

_FIRST = {alias: first for first, aliases in ALIASES.items() for alias in aliases}
_IN_LAYER = re.compile(r"(?P<layer>model\.layers\.\d+\.)(?P<name>.+)")


def first_alias(path: str) -> str:
    """The module's path, with its name replaced by the first equivalent name in the table."""
    match = _IN_LAYER.fullmatch(path)
    return match["layer"] + _FIRST.get(match["name"], match["name"]) if match else path


def is_in_tower(path: str) -> bool:
    """Whether the converter leaves the module out, because its name is that of a tower or connector."""
    return _TOWERS.match(f"{path}.weight") is not None
