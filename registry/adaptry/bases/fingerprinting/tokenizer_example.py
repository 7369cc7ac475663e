"""Finds a text for which two tokenizers give different ids, among a few hundred likely texts.

It runs in a child process, since it loads untrusted files with the `tokenizers` library. If that is not
installed, there is no example.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

_TEXTS = (
    *("Hello, world", "HELLO", " leading", "two  spaces", "a\tb\n\nc", "don't I'LL", "1234567 3.14"),
    *("naïve café", "e\u0301", "ｆｕｌｌ ﬁ", "CamelCase snake_case", "x==y && !z", "日本語 テスト", "Привет"),
    *("🙂👍🏽", "https://a.b/c?d=e#f"),
)
_MAX_MERGES = 300
_MAX_ADDED_TOKENS = 20
_SHOWN = 8


def find_example(ours: bytes, bases: bytes) -> dict[str, Any] | None:
    """A `text` and its tokens, as JSON, from our tokenizer and the base's; None if no such text was found. If
    the tokens are the same, their ids follow in brackets. Raises the library's errors.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    one, other = (Tokenizer.from_str(data.decode()) for data in (ours, bases))
    for text in (*_TEXTS, *_likely(json.loads(ours), json.loads(bases))):
        here, there = one.encode(text), other.encode(text)
        if here.ids != there.ids:
            ours_shown, bases_shown = here.tokens[:_SHOWN], there.tokens[:_SHOWN]
            if ours_shown == bases_shown:
                ours_shown, bases_shown = _with_ids(here), _with_ids(there)
            return {"text": text, "ours": ours_shown, "bases": bases_shown}
    return None


def _with_ids(encoding: Any) -> list[str]:
    """(`Any`: the library's `Encoding`.)"""
    pairs = zip(encoding.tokens[:_SHOWN], encoding.ids, strict=False)
    return [f"{token} [{number}]" for token, number in pairs]


def _likely(ours: Any, bases: Any) -> Iterator[str]:
    """Texts likely to show a difference: with added tokens, or merges that only one tokenizer has or that it
    ranks differently. (`Any`: JSON.)
    """
    known = bases.get("added_tokens") or []
    odd = [token for token in ours.get("added_tokens") or [] if token not in known]
    for token in odd[:_MAX_ADDED_TOKENS]:
        yield f"a {token['content']} b"
        yield f"a{token['content'].lower()}b"
    pairs = [_pairs(document) for document in (ours, bases)]
    different = [pair for both in zip(*pairs, strict=False) if both[0] != both[1] for pair in both]
    for pair in different[:_MAX_MERGES]:
        yield "".join(pair).replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")


def _pairs(document: Any) -> list[list[str]]:
    """(`Any`: JSON.)"""
    merges = document["model"].get("merges") or []
    return [merge.split(" ", 1) if isinstance(merge, str) else list(merge) for merge in merges]


def answer(data: bytes, length: str) -> bytes:
    """Like `find_example`, for our file, which has this `length`, and the base's file, which follows it."""
    return json.dumps(find_example(data[: int(length)], data[int(length) :])).encode()
