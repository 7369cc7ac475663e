"""What the names of a base's tensors mean, whichever tool wrote them.

The same weights go by several names: with or without the task model's prefix, LayerNorms by their TensorFlow
names, embeddings under a dozen spellings. These are the rules that everyone who
compares or looks up names shares. They know text only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

INPUT_EMBEDDINGS = frozenset(
    [
        "embed_tokens",
        "wte",
        "word_embeddings",
        "word_embedding",
        "embed_in",
        "embeddings",
        "tok_embeddings",
        "tokens_embed",
        "shared",
    ]
)
OUTPUT_HEADS = frozenset(["lm_head", "embed_out", "output", "generator_lm_head"])
# Last parts of other heads that are tied to the embedding: of BERT and its kin, DistilBERT, XLNet. The same
# names stand for other modules elsewhere.
TIED_HEADS = frozenset(["decoder", "vocab_projector", "lm_loss"])
_TASK_HEADS = OUTPUT_HEADS | {"score", "classifier", "qa_outputs", "cls", "v_head", "multiple_choice_head"}

# Buffers that older tools saved: they follow from the config and carry no training.
_BUFFERS = re.compile(
    r"(?:.*\.)?(?:rotary_emb\.inv_freq|attn\.(?:masked_)?bias|attention\.(?:masked_)?bias|position_ids)"
)
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
_LEGACY_ENDS = (
    (".gamma", ".weight"),
    (".beta", ".bias"),
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
)


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a mask, a position table or a rotary table rather than a weight.

    GPT-2's causal mask is called `attn.bias` like a real bias, and is told from one by its four dimensions.
    """
    if not _BUFFERS.fullmatch(name):
        return False
    return not name.endswith(".bias") or len(shape) == 4


def layer_of(name: str) -> int | None:
    """The layer a module or weight is in: the first number in its path."""
    found = _LAYER.search(name)
    return int(found[0]) if found else None


def is_output_head(name: str) -> bool:
    """Whether `name` is the weight that turns the last hidden state into a score for each token."""
    parts = name.split(".")
    return 2 <= len(parts) <= 3 and parts[-1] == "weight" and parts[-2] in OUTPUT_HEADS


def input_embedding(names: Iterable[str]) -> str | None:
    """The weight of the token embedding, if exactly one is there; an encoder-decoder's shared one first."""
    found = [name for name in names if name.endswith(".weight") and name.split(".")[-2] in INPUT_EMBEDDINGS]
    shared = [name for name in found if _owner(name) == "shared"]
    for candidates in (shared, found):
        if len(candidates) == 1:
            return candidates[0]
    return None


def normalised(names: Iterable[str]) -> Mapping[str, str]:
    """Each name as it would be without the task model's prefix and in today's spelling.

    A first part that all weights but the heads share (`model`, `transformer`, `bert`) is dropped, again and
    again: `GPT2Model` and `GPT2LMHeadModel` write the same weights with and without it.
    """
    names = list(names)
    modern = {name: _modern(name) for name in names}
    inner = [name.split(".") for name in modern.values() if name.split(".")[0] not in _TASK_HEADS]
    depth = 0
    while inner and _shared_part(inner, depth):
        depth += 1
    prefix = ".".join(inner[0][:depth]) + "." if depth else ""
    return {name: modern[name].removeprefix(prefix) for name in names}


def _owner(name: str) -> str:
    """The module a parameter belongs to, by its last part: `wte` of `transformer.wte.weight`."""
    return name.rpartition(".")[0].rpartition(".")[2]


def _shared_part(names: list[list[str]], depth: int) -> bool:
    first = names[0][depth] if len(names[0]) > depth + 2 else ""
    return (
        first not in ("", "layers", "h")
        and not first.isdecimal()
        and all(len(name) > depth + 1 and name[depth] == first for name in names)
    )


def _modern(name: str) -> str:
    for old, new in _LEGACY_ENDS:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
