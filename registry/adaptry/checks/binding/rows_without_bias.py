"""Trained token rows, or a saved copy, of an output head that has a bias.

PEFT's layer for token rows multiplies with the changed weight and leaves out the bias. The layer also
replaces a head that is tied to the embedding, like BERT's, and so does the copy of a saved embedding with
`ensure_weight_tying`. A merge changes the weight and keeps the bias.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.tensor_names import is_input_embedding
from adaptry.bases.module_map import ExtraTarget
from adaptry.checks.binding.bound_adapter import BoundAdapter

_TIED_HEADS = (
    "cls.predictions",
    "cls.predictions.decoder",
    "decoder",
    "generator_lm_head",
    "lm_head",
    "lm_head.decoder",
    "lm_loss",
    "pred_layer.proj",
    "predictions",
    "predictions.decoder",
    "vocab_projector",
)
"""The modules that hold the bias of a tied head on disk."""
_INSIDE = (".cls.predictions.bias", ".cls.predictions.decoder.bias")
"""The ends of such names in a model that contains BERT's, as BLIP's text decoder."""
_BESIDE_HEAD = frozenset(["esm"])
"""Models that add the bias outside of the head."""
_TASKS_WITHOUT_HEAD = frozenset(["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"])


def heads_without_bias(bound: BoundAdapter) -> tuple[str, ...]:
    """The tensors of the base with the biases that PEFT leaves out."""
    return tuple(dict.fromkeys(_left_out(bound)))


def _left_out(bound: BoundAdapter) -> Iterator[str]:
    for extra in bound.module_map.extras:
        if bound.ties_saved and extra.extra.kind in ("module", "saved_embedding"):
            yield from _of_tied_head(bound, extra)
        if extra.extra.kind != "token_rows":
            continue
        own = f"{extra.tensor.removesuffix('.weight')}.bias"
        if own in bound.base.tensors:
            yield own
        yield from _of_tied_head(bound, extra)


def _of_tied_head(bound: BoundAdapter, extra: ExtraTarget) -> Iterator[str]:
    facts, tensors = bound.base.facts, bound.base.tensors
    is_tied = facts.get("tie_word_embeddings") is True and facts.get("model_type") not in _BESIDE_HEAD
    path = extra.extra.target.removesuffix(".weight")
    if not is_tied or bound.adapter.spec.task in _TASKS_WITHOUT_HEAD:
        return
    if extra.tied or is_input_embedding(path):
        yield from (name for head in _TIED_HEADS if (name := f"{head}.bias") in tensors)
        yield from (name for name in tensors if name.endswith(_INSIDE))
