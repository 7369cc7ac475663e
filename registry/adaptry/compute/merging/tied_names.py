"""The users of a tied embedding, by transformers' names: the output head, its bias, copies in the two stacks.

A model that unties them needs each under its name. The names are those of transformers 5
(`_tied_weights_keys` of its classes). For models outside the tables, no name is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from adaptry.adapters.tensor_names import input_embedding
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.tied_weights import HEADS, INSIDE_ANOTHER, LIKE_BERT, LIKE_ROBERTA
from adaptry.core.lazy_dataclass import dataclass

# Models with embeddings and no output head, whatever their config says about tying (BERT's always sets it).
_HEADLESS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)


@dataclass(frozen=True, slots=True)
class TiedNames:
    """`head`: the path of the output head, None if unknown. `bias`: the tensor its bias is tied to.

    `copies`: paths of further users of the embedding that are untied with the head. `input`: the path, among
    these, of the model's own input embedding, whose rows PEFT gives to all others. `is_several`: whether
    embeddings with other names share it. `has_head`: whether the base's model has a head. `config`: the
    fields of the untied model's config. `gives_rows`: whether PEFT also gives the head the rows that it
    trains in the embedding; it sees only ties that the config itself states, and not those of its parts.
    """

    head: str | None = "lm_head"
    bias: str = ""
    copies: tuple[str, ...] = ()
    input: str = ""
    is_several: bool = False
    has_head: bool = True
    gives_rows: bool = True
    config: Mapping[str, Any] = field(default_factory=lambda: {"tie_word_embeddings": False})


_BART = TiedNames(copies=("encoder.embed_tokens", "decoder.embed_tokens"), is_several=True)
_PROPHETNET = TiedNames(copies=("encoder.word_embeddings", "decoder.word_embeddings"), is_several=True)
# T5 always ties its stacks to each other. Since transformers 5 its config has the scaling separately from the
# tie.
_T5 = TiedNames(is_several=True, config={"tie_word_embeddings": False, "scale_decoder_outputs": True})

_LIKE_BART = (
    "bart", "mbart", "pegasus", "m2m_100", "blenderbot", "blenderbot-small", "led", "mvp", "plbart",
    "bigbird_pegasus",
)  # fmt: skip
# Heads without any stored tensor while they are tied: neither a bias nor other parameters of the head.
_BARE = ("lm_head", "proj_out", "output_projection", "embed_out", "output", "head")

_TIES: Mapping[str, TiedNames] = {
    **{kind: TiedNames(head) for kind, head in HEADS.items()},
    **{kind: TiedNames(HEADS[kind], "cls.predictions.bias") for kind in (*LIKE_BERT, "blip_text_model")},
    **{kind: TiedNames(HEADS[kind], "lm_head.bias") for kind in LIKE_ROBERTA},
    "albert": TiedNames(HEADS["albert"], "predictions.bias"),
    "blip": TiedNames(HEADS["blip"], "text_decoder.cls.predictions.bias"),
    **dict.fromkeys(INSIDE_ANOTHER, TiedNames(head=None, gives_rows=False)),
    **dict.fromkeys(_LIKE_BART, _BART),
    "marian": replace(_BART, input="encoder.embed_tokens"),
    "prophetnet": _PROPHETNET,
    "t5": _T5,
    "mt5": replace(_T5, config={"tie_word_embeddings": False}),
}


def find_tied_names(checkpoint: HfCheckpoint) -> TiedNames:
    """The users of this base's embedding."""
    listed = checkpoint.config.get("architectures")
    architectures = [str(name) for name in listed] if isinstance(listed, list) else []
    if any(name.endswith(_HEADLESS) for name in architectures):
        return TiedNames(head=None, has_head=False)
    model_type = str(checkpoint.config.get("model_type") or "")
    known = _TIES.get(model_type)
    if known is None:
        is_other = checkpoint.config.get("is_encoder_decoder") is True
        is_other = is_other or any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures)
        return TiedNames(head=None) if is_other else TiedNames()
    if known.copies:
        around, _, _ = (input_embedding(checkpoint.tensors) or "").removesuffix(".weight").rpartition(".")
        around = f"{around}." if around else ""
        own = around + known.input if known.input else ""
        return replace(known, copies=tuple(around + copy for copy in known.copies), input=own)
    if known.head is None or known.head.rpartition(".")[2] in _BARE:
        return known
    around, _, _ = known.head.rpartition(".")
    beside = f"{around or known.head}."  # its bias, or another parameter of the head
    return replace(known, has_head=any(name.startswith(beside) for name in checkpoint.tensors))
