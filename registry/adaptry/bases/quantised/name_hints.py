"""Hints at a quantisation in the name of a base, as tools write them: `…-bnb-4bit`, `…-GPTQ-Int4`, `…-AWQ`.

A name is only a hint: it can be a reason to ask the user, but never to compute anything.
"""

from __future__ import annotations

import re

_QUANTISED = re.compile(
    r"(?:^|[-_./])"
    r"((?:bnb[-_.]?)?[2-8][-_.]?bits?|int[48]|[nf][fp]4|gptq|awq|w[48]a(?:4|8|16)|fp8|mxfp4|nvfp4|hqq"
    r"|exl[23])"
    r"(?=$|[-_./])",
    re.IGNORECASE,
)


def parse_quantisation_hint(base_name: str | None) -> str | None:
    """The word in a base's name that indicates a quantisation; None if no word does."""
    found = _QUANTISED.search(base_name or "")
    return found[1] if found else None
