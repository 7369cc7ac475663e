"""A tokenizer's vocabulary in a few kilobytes: digests of the tokens' ids, and the added tokens.

This is enough to find out whether another tokenizer gives the same ids, and in which ranges it does not. It
is read from `tokenizer.json`, or from `vocab.json` and `added_tokens.json`. Standard library only, since a
child process runs this on untrusted files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from adaptry.bases.fingerprinting import tokenizer_steps
from adaptry.core import strictjson
from adaptry.core.errors import Invalid

BLOCK = 1024
"""Number of ids in a block, which has one digest."""

TOKENIZER, VOCABULARY, ADDED = "tokenizer.json", "vocab.json", "added_tokens.json"
_MAX_ID = 1 << 24
_SHOWN = 3

Tokens = dict[int, str]


def tokens_of(document: Any) -> tuple[Tokens, Tokens]:
    """All tokens by id, and those that are listed as added. (`Any`: JSON.) Raises `Invalid`."""
    try:
        if "model" not in document:
            return _by_id(document), {}
        vocabulary = document["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pairs of token and score
            vocabulary = {str(entry[0]): number for number, entry in enumerate(vocabulary)}
        added = _by_id({token["content"]: token["id"] for token in document.get("added_tokens") or []})
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise Invalid(f"the tokenizer has an unexpected structure: {error!r}"[:200]) from None
    return {**_by_id(vocabulary), **added}, added


def block_digests(tokens: Mapping[int, str], size: int) -> list[str]:
    """A digest of the ids and tokens of each block of ids below `size`."""
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

    `blocks`: indices of the blocks that differ in more than added tokens. `moved`: added tokens with another
    id, as [token, id there, id here]. `replaced`: ids with another added token, as [id, token there, token
    here]. `absent`: added tokens that `tokens` lacks. `new`: number of ids beyond the vocabulary. `last`: the
    largest id. `examples`: the first few new tokens.
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
        "absent": [token for token in added.values() if token not in ids],
        "new": len(new),
        "last": max(tokens, default=-1),
        "examples": [tokens[number] for number in new[:_SHOWN]],
    }


def _by_id(vocabulary: Mapping[str, int]) -> Tokens:
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < _MAX_ID or type(token) is not str:
            raise Invalid(f"the token {str(token)[:40]!a} has an invalid id")
    return {number: token for token, number in vocabulary.items()}


def answer(data: bytes, size: str, depth: str, nodes: str, lengths: str, known: str) -> bytes:
    """Like `compare`, for the files in `data`, which are concatenated and have these `lengths`, and for
    `known`, as JSON. For a `tokenizer.json` the result also has its `steps`, and the flags of its `added`
    tokens.
    """
    limits = strictjson.JsonLimits(int(size), int(depth), int(nodes))
    tokens: Tokens = {}
    steps: dict[str, str] = {}
    flags: dict[str, str] = {}
    start = 0
    try:
        for length in json.loads(lengths):
            document = strictjson.loads(data[start : start + length], limits, "the tokenizer")
            tokens |= tokens_of(document)[0]
            if "model" in document:
                steps, flags = tokenizer_steps.steps_of(document), tokenizer_steps.added_flags(document)
            start += length
    except Invalid as error:
        return json.dumps({"refused": error.message}).encode()
    vocabulary = json.loads(known)
    added = {number: token for token, number in vocabulary["added"].items()}
    found = compare(tokens, vocabulary["size"], vocabulary["blocks"], added)
    return json.dumps({**found, "steps": steps, "flags": flags}).encode()
