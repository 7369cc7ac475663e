"""Weights that a model has in memory and a checkpoint lacks, since they are tied to the input embedding: the
output head, and the embeddings of an encoder-decoder's two stacks.

The names are those of transformers 5 (`_tied_weights_keys` of its classes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.adapters.tensor_names import input_embedding

LIKE_BERT = (
    "bert", "deberta", "deberta-v2", "big_bird", "ernie", "megatron-bert", "roc_bert", "roformer",
)  # fmt: skip
LIKE_ROBERTA = (
    "roberta", "camembert", "xlm-roberta", "mpnet", "bert-generation", "data2vec-text",
    "roberta-prelayernorm", "xlm-roberta-xl", "xmod",
)  # fmt: skip
INSIDE_ANOTHER = ("blip-2", "instructblip", "instructblipvideo")
"""Models that contain a whole language model, whose config alone states that it ties its head."""
HEADS: Mapping[str, str] = {
    **dict.fromkeys(LIKE_BERT, "cls.predictions.decoder"),
    **dict.fromkeys((*LIKE_ROBERTA, "esm"), "lm_head.decoder"),
    **dict.fromkeys(INSIDE_ANOTHER, "language_model.lm_head"),
    **dict.fromkeys(("modernbert", "modernbert-decoder"), "decoder"),
    **dict.fromkeys(("xlm", "flaubert"), "pred_layer.proj"),
    "albert": "predictions.decoder",
    "biogpt": "output_projection",
    "blip": "text_decoder.cls.predictions.decoder",
    "blip_text_model": "cls.predictions.decoder",
    "distilbert": "vocab_projector",
    "electra": "generator_lm_head",
    "git": "output",
    "gpt_neox_japanese": "embed_out",
    "kosmos-2": "text_model.lm_head",
    "rwkv": "head",
    "speecht5": "text_decoder_postnet.lm_head",
    "trocr": "output_projection",
    "whisper": "proj_out",
    "xlnet": "lm_loss",
}
"""Output heads with names other than `lm_head`, by type of model."""
LANGUAGE_MODEL = re.compile(
    r".+(?:ForCausalLM|LMHeadModel|ForConditionalGeneration|ForSpeechToText|MTModel|DoubleHeadsModel)"
)
"""The classes of models that have an output head in any case."""
OWN_EMBEDDINGS: Mapping[str, tuple[str, ...]] = {"ctrl": ("transformer.w.weight",)}
"""Input embeddings with names that have this meaning only in models of the type: ends of names in memory."""
_SHARED = "shared.weight"
_STACKS = ("encoder", "decoder", "text_encoder", "text_decoder")


def tied_weights(
    parameters: Mapping[str, tuple[int, ...] | None], facts: Mapping[str, Any], *, has_head: bool
) -> dict[str, tuple[int, ...]]:
    """The names in memory, each with the embedding's shape. `parameters` are the known ones; a tied head has
    None as its shape. `facts` are the base's (`Any`: JSON); `has_head`: whether the model is loaded with its
    head.
    """
    shapes = {name: shape for name, shape in parameters.items() if shape is not None}
    own = OWN_EMBEDDINGS.get(str(facts.get("model_type") or ""))
    embedding = input_embedding(shapes) or next((name for name in shapes if own and name.endswith(own)), None)
    if embedding is None:
        return {}
    paths = [*_stack_copies(shapes, embedding, facts)]
    if has_head:
        paths += [name.removesuffix(".weight") for name, shape in parameters.items() if shape is None]
        paths += _other_head(shapes, facts)
    names = (f"{path}.weight" for path in paths)
    return {name: shapes[embedding] for name in names if name not in shapes}


def _stack_copies(
    shapes: Mapping[str, tuple[int, ...]], embedding: str, facts: Mapping[str, Any]
) -> Iterator[str]:
    """The embeddings of both stacks, if another module holds their weight."""
    own = "word_embeddings" if facts.get("model_type") == "prophetnet" else "embed_tokens"
    shared = f"{own}.weight" if own == "word_embeddings" else _SHARED
    if embedding != shared and not embedding.endswith(f".{shared}"):
        return
    around = embedding.removesuffix(shared)
    for stack in _STACKS:
        if any(name.startswith(f"{around}{stack}.") for name in shapes):
            yield f"{around}{stack}.{own}"


def _other_head(shapes: Mapping[str, tuple[int, ...]], facts: Mapping[str, Any]) -> list[str]:
    """The output head under the name that its class gives it, if the class always has one, or if its
    neighbours are stored.
    """
    head = HEADS.get(str(facts.get("model_type") or ""))
    if head is None:
        return []
    (saved_class, *_) = facts.get("architectures") or ("",)
    around, _, _ = head.rpartition(".")
    beside = f"{around or head}."
    is_seen = LANGUAGE_MODEL.fullmatch(saved_class) or any(name.startswith(beside) for name in shapes)
    return [head] if is_seen else []
