"""The last part of a module's path, under which modules of all layers are grouped."""

from __future__ import annotations

from adaptry.core.lazy_pattern import lazy_pattern

_FLAT = lazy_pattern(r"(?:lora|lycoris)_.*_\d+_(\D.*?)(?:_\d+)*")


def last_part(path: str) -> str:
    """`q_proj` of `model.layers.0.self_attn.q_proj`. kohya's names have `_` for every `.`, so their last part
    is the text after the last number: `attn1_to_q` of `lora_unet_mid_block_attentions_0_attn1_to_q`.
    """
    name = path.rpartition(".")[2]
    flat = _FLAT.fullmatch(name) if name == path else None
    return flat[1] if flat else name
