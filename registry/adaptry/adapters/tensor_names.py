"""The meaning of the names of a base's tensors, whichever tool wrote them.

The same weights have several names: with or without a task model's prefix, LayerNorms with their TensorFlow
names, embeddings in a dozen spellings. All code that compares or looks up names uses these rules, which
depend on text only.
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
# Last parts of other heads that are tied to the embedding: those of BERT-like models, DistilBERT and XLNet.
# Other models use the same names for other modules.
TIED_HEADS = frozenset(["decoder", "vocab_projector", "lm_loss"])
_STACKS = frozenset(["encoder", "decoder"])
_TASK_HEADS = OUTPUT_HEADS | {"score", "classifier", "qa_outputs", "cls", "v_head", "multiple_choice_head"}

# Buffers that older tools saved: they follow from the config and are not trained.
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
    """Whether a tensor is a mask, a position table or a rotary table, and not a weight.

    GPT-2's causal mask is called `attn.bias` like a real bias, but has four dimensions.
    """
    if not _BUFFERS.fullmatch(name):
        return False
    return not name.endswith(".bias") or len(shape) == 4


def layer_of(name: str) -> int | None:
    """The layer of a module or weight: the first number in its path."""
    found = _LAYER.search(name)
    return int(found[0]) if found else None


def is_input_embedding(path: str) -> bool:
    """Whether the module at `path` has the name of a token embedding."""
    return path.rpartition(".")[2] in INPUT_EMBEDDINGS


def is_stack_copy(path: str, tensor: str) -> bool:
    """Whether the module at `path` is the embedding of an encoder or decoder that is tied to `tensor`: the
    shared embedding of T5's and BART's relatives, or ProphetNet's.
    """
    *_, stack, name = ("", *path.split("."))
    if tensor.endswith("shared.weight"):
        return name in INPUT_EMBEDDINGS and name != "shared" and stack.endswith(tuple(_STACKS))
    *around, owner, _ = tensor.split(".")
    is_in_stack = name == owner == "word_embeddings" and stack in _STACKS
    return is_in_stack and _STACKS.isdisjoint(around)


def is_output_head(name: str) -> bool:
    """Whether `name` is the weight that turns the last hidden state into a score for each token."""
    parts = name.split(".")
    return 2 <= len(parts) <= 3 and parts[-1] == "weight" and parts[-2] in OUTPUT_HEADS


def input_embedding(names: Iterable[str]) -> str | None:
    """The weight of the token embedding, if there is exactly one; the shared one of an encoder-decoder
    first.
    """
    found = [name for name in names if name.endswith(".weight") and name.split(".")[-2] in INPUT_EMBEDDINGS]
    shared = [name for name in found if _owner(name) == "shared"]
    for candidates in (shared, found):
        if len(candidates) == 1:
            return candidates[0]
    return None


def normalised(names: Iterable[str]) -> Mapping[str, str]:
    """Each name without the task model's prefix and in its current spelling.

    Leading parts that all weights share, except those of the heads (`model`, `transformer`, `bert`) are
    dropped repeatedly: `GPT2Model` and `GPT2LMHeadModel` write the same weights without and with them.
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
    """The last part of the name of the module that has the parameter: `wte` of `transformer.wte.weight`."""
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
