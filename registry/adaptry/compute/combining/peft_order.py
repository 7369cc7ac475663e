"""The order in which a model registers its modules, guessed from their paths.

PEFT walks `named_modules()`, so its random numbers depend on that order, which an adapter does not contain.
Numbers are sorted as numbers; names are in the order of Llama, GPT-2, BERT, ViT and similar models; unknown
names come last, in alphabetical order.
"""

from __future__ import annotations

from collections.abc import Iterable

_NAMES = (
    *(
        "embeddings",
        "embed_tokens",
        "word_embeddings",
        "wte",
        "position_embeddings",
        "wpe",
        "patch_embeddings",
    ),
    *("encoder", "decoder", "transformer", "model", "layers", "layer", "h", "block"),
    *(
        "self_attn",
        "attention",
        "attn",
        "self",
        "self_attention",
        "crossattention",
        "encoder_attn",
        "cross_attn",
    ),
    *("c_attn", "q_attn", "query_key_value", "qkv", "qkv_proj", "Wqkv"),
    *("q", "q_proj", "query", "q_lin", "to_q", "k", "k_proj", "key", "k_lin", "to_k"),
    *("v", "v_proj", "value", "v_lin", "to_v", "o", "o_proj", "out_proj", "out_lin", "to_out"),
    *("mlp", "ffn", "feed_forward", "intermediate", "output"),
    *("gate_proj", "gate_up_proj", "up_proj", "c_fc", "fc_in", "fc1", "lin1", "dense_h_to_4h", "w1"),
    *("down_proj", "fc_out", "c_proj", "fc2", "lin2", "dense_4h_to_h", "w2", "w3", "dense"),
    *("pooler", "lm_head", "score", "classifier"),
)
_RANKING = {name: place for place, name in enumerate(_NAMES)}
_QUERIES = frozenset({"q", "q_proj", "query", "q_lin", "to_q"})
_VALUE = max(_RANKING[name] for name in ("v", "v_proj", "value", "v_lin", "to_v"))


def in_model_order(paths: Iterable[str], attention: str = "qkv") -> list[str]:
    """`paths` in the order of `named_modules()`. `attention`: `kvq` if the query comes last."""
    return sorted(paths, key=lambda path: [_place(part, attention) for part in path.split(".")])


def order_note(paths: Iterable[str], attention: str) -> str:
    """A note about the assumed order."""
    ordered = in_model_order(paths, attention)
    strange = sorted({part for path in ordered for part in path.split(".") if not _is_known(part)})
    note = f"random numbers are drawn in the assumed order of the model's modules: {ordered[0]} first, "
    note += f"{ordered[-1]} last"
    return f"{note}; unknown names in alphabetical order ({', '.join(strange[:5])})" if strange else note


def _is_known(part: str) -> bool:
    return part.isdigit() or part in _RANKING


def _place(part: str, attention: str) -> tuple[int, float, str]:
    if part.isdigit():
        return 0, int(part), ""
    if attention == "kvq" and part in _QUERIES:
        return 1, _VALUE + 0.5, part
    return (1, _RANKING[part], part) if part in _RANKING else (2, 0, part)
