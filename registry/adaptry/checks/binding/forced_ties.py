"""Models whose config says in memory that embedding and head are tied, whatever the file says.

transformers sets `tie_word_embeddings` in the configs of T5's family, but does not tie a head for which the
checkpoint has weights of its own, as FLAN-T5's has. PEFT reads only the config: it gives the rows of tokens
that an adapter trains in the embedding to the head too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEAD = "lm_head"
_FORCED = frozenset(["longt5", "mt5", "t5", "udop", "umt5"])
"""As in transformers 5.24."""


def is_forced_tie(facts: Mapping[str, Any], has_head: bool) -> bool:
    """Whether PEFT gives trained rows of the embedding to a head that is not tied to it. `facts` are the
    base's, or its config; `has_head`: whether it stores a head. (`Any`: JSON.)
    """
    is_untied = facts.get("tie_word_embeddings") is False and has_head
    return is_untied and facts.get("model_type") in _FORCED
