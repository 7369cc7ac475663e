"""Models whose config in memory ties embedding and head, whatever is in the file.

transformers sets `tie_word_embeddings` in the configs of T5's family, but does not tie a head for which the
checkpoint has separate weights, as FLAN-T5's does. PEFT reads only the config: it gives the rows of tokens
that an adapter trains in the embedding to the head too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

HEAD = "lm_head"
_FORCED = frozenset(["longt5", "mt5", "t5", "udop", "umt5"])
"""As in transformers 5.24."""
OTHER_INPUT = frozenset(["marian", "seamless_m4t", "seamless_m4t_v2"])
"""Models whose `get_input_embeddings` is not the shared embedding, but one of a stack. PEFT gives trained
rows of the input embedding to all modules that are tied to it, and leaves those of any other to itself.
"""
STACK_INPUTS = tuple(
    f"{around}{stack}.embed_tokens" for around in ("model.", "") for stack in ("encoder", "text_decoder")
)
"""The paths of these embeddings, in a model with a head and in the bare one."""


def is_forced_tie(facts: Mapping[str, Any], has_head: bool) -> bool:
    """Whether PEFT gives trained rows of the embedding to a head that is not tied to it. `facts` are the
    base's, or its config; `has_head`: whether it stores a head. (`Any`: JSON.)
    """
    is_untied = facts.get("tie_word_embeddings") is False and has_head
    return is_untied and facts.get("model_type") in _FORCED


def is_input_among_tied(facts: Mapping[str, Any], tensors: Iterable[str]) -> bool:
    """Whether PEFT counts the model's own input embedding among the modules that are tied to it, so that
    `ensure_weight_tying` fails. `facts` are the base's, or its config (`Any`: JSON), and `tensors` its names.
    """
    if facts.get("model_type") not in OTHER_INPUT or facts.get("tie_word_embeddings") is False:
        return False
    return any(name == "shared.weight" or name.endswith(".shared.weight") for name in tensors)
