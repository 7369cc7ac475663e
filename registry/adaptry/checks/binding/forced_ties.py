"""Models whose config says in memory that embedding and head are tied, whatever the file says.

transformers sets `tie_word_embeddings` in the configs of T5's family, but does not tie a head for which the
checkpoint has weights of its own, as FLAN-T5's has. PEFT reads only the config: the rows of tokens that an
adapter trains in the embedding then replace those of the head. A merge changes the embedding alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_FORCED = frozenset(["longt5", "mt5", "t5", "udop", "umt5"])
"""As in transformers 5.24."""


def rows_of_forced_ties(facts: Mapping[str, Any], has_head: bool, adapted: Iterable[str]) -> tuple[str, ...]:
    """Those of the embeddings with trained rows whose rows PEFT gives to a head that is not tied to them.
    `facts` are the base's; `has_head`: whether it stores a head. (`Any`: JSON.)
    """
    is_untied = facts.get("tie_word_embeddings") is False and has_head
    is_forced = is_untied and facts.get("model_type") in _FORCED
    return tuple(path for path in adapted if is_forced and path != "lm_head")
