"""A tokenizer's vocabulary in a few kilobytes: which token has which id, in digests, and the added tokens.

Enough to tell whether another tokenizer gives the same ids, and in which range it does not. Read from
`tokenizer.json`, or from `vocab.json` and `added_tokens.json`. Standard library only: a child process reads
files that others wrote.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from adaptry.core import strictjson
from adaptry.core.errors import Invalid

BLOCK = 1024
"""Ids in one block, of which there is one digest."""

TOKENIZER, VOCABULARY, ADDED = "tokenizer.json", "vocab.json", "added_tokens.json"
_LARGEST_ID = 1 << 24
_SHOWN = 3

Tokens = dict[int, str]


def tokens_of(document: Any) -> tuple[Tokens, Tokens]:
    """All tokens by id, and those of them that are listed as added. (`Any`: JSON.) Raises `Invalid`."""
    try:
        if "model" not in document:
            return _by_id(document), {}
        vocabulary = document["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pairs of token and score
            vocabulary = {str(entry[0]): number for number, entry in enumerate(vocabulary)}
        added = _by_id({token["content"]: token["id"] for token in document.get("added_tokens") or []})
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise Invalid(f"the tokenizer is not laid out as one: {error!r}"[:200]) from None
    return {**_by_id(vocabulary), **added}, added


def block_digests(tokens: Mapping[int, str], size: int) -> list[str]:
    """For each block of ids below `size`, a digest of its ids and tokens."""
    digests = []
    for start in range(0, size, BLOCK):
        block = [
            (number, tokens[number]) for number in range(start, min(start + BLOCK, size)) if number in tokens
        ]
        digests.append(hashlib.sha256(strictjson.canonical(block)).hexdigest()[:16])
    return digests


def compare(
    tokens: Mapping[int, str], size: int, blocks: list[str], added: Mapping[int, str]
) -> dict[str, Any]:
    """How `tokens` differ from a vocabulary of `size` ids with these `blocks` and `added` tokens, as JSON.

    `blocks`: numbers of those that differ apart from added tokens. Of the added tokens, `moved`: [token, its
    id there, here], and `replaced`: [id, token there, here]. `new`: how many ids lie beyond the vocabulary;
    `last`: the largest id; `examples`: the first few new tokens.
    """
    ids = {token: number for number, token in tokens.items()}
    here = block_digests({**tokens, **added}, size)
    moved = [
        [token, number, ids[token]] for number, token in added.items() if ids.get(token, number) != number
    ]
    gone = {token for token, _, _ in moved}
    replaced = [
        [number, token, tokens[number]]
        for number, token in added.items()
        if tokens.get(number, token) != token and token not in gone
    ]
    new = sorted(number for number in tokens if number >= size)
    return {
        "blocks": [
            number for number, pair in enumerate(zip(blocks, here, strict=False)) if len(set(pair)) > 1
        ],
        "moved": moved[:_SHOWN],
        "replaced": replaced[:_SHOWN],
        "replaced_count": len(replaced),
        "new": len(new),
        "last": max(tokens, default=-1),
        "examples": [tokens[number] for number in new[:_SHOWN]],
    }


def _by_id(vocabulary: Mapping[str, int]) -> Tokens:
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < _LARGEST_ID or type(token) is not str:
            raise Invalid(f"the token {str(token)[:40]!a} has no sensible id")
    return {number: token for token, number in vocabulary.items()}


def answer(data: bytes, size: str, depth: str, nodes: str, lengths: str, known: str) -> bytes:
    """As `compare`: the files in `data`, one after the other, of these `lengths`, with `known`, as JSON."""
    limits = strictjson.JsonLimits(int(size), int(depth), int(nodes))
    tokens: Tokens = {}
    start = 0
    try:
        for length in json.loads(lengths):
            tokens |= tokens_of(strictjson.loads(data[start : start + length], limits, "the tokenizer"))[0]
            start += length
    except Invalid as error:
        return json.dumps({"refused": error.message}).encode()
    vocabulary = json.loads(known)
    added = {number: token for token, number in vocabulary["added"].items()}
    return json.dumps(compare(tokens, vocabulary["size"], vocabulary["blocks"], added)).encode()
