"""A tokenizer's identity: tokenizers with the same identity give the same tokens, whichever tool wrote the
files.

It covers `tokenizer.json` without the fields that do not change tokens (truncation, padding), with merges in
one of their two spellings. A SentencePiece model without `tokenizer.json` is identified by its bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adaptry.adapters.base_record import Tokenization, Vocabulary
from adaptry.bases.fingerprinting import chat_template, tokenizer_steps, vocabulary
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.strictjson import canonical

_FAST = "tokenizer.json"
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_MAX_SIZE = 128 << 20
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def tokenizer_digest(folder: Path) -> Digest | None:
    """The digest of the tokenizer in a model's folder; None if the folder has no tokenizer in a format that
    we read.
    """
    if (folder / _FAST).is_file():
        if (folder / _FAST).stat().st_size > _MAX_SIZE:
            return None
        # A tokenizer is evidence and not a condition, so a base with an unreadable one is accepted.
        try:
            return Digest.of(canonical(_relevant_parts(json.loads((folder / _FAST).read_bytes()))))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return None
    for name in _SENTENCEPIECE:
        if (folder / name).is_file():
            return Digest.of((folder / name).read_bytes())
    return None


def vocabulary_of(folder: Path) -> Vocabulary | None:
    """The vocabulary of the tokenizer in a model's folder; None if it has none that we read."""
    names = [_FAST] if (folder / _FAST).is_file() else [vocabulary.VOCABULARY, vocabulary.ADDED]
    tokens: dict[int, str] = {}
    added: dict[int, str] = {}
    try:
        for name in names:
            if (document := _json(folder / name)) is not None:
                every, listed = vocabulary.tokens_of(document)
                added |= every if name == vocabulary.ADDED else listed
                tokens |= every
    except Invalid:
        return None
    if not tokens:
        return None
    size = max(tokens) + 1
    return Vocabulary(
        size=size,
        blocks=tuple(vocabulary.block_digests(tokens, size)),
        added={token: number for number, token in added.items()},
    )


def tokenization_of(folder: Path) -> Tokenization | None:
    """The steps of the tokenizer in a model's folder; None if there is no `tokenizer.json` that we read."""
    if (document := _json(folder / _FAST)) is None:
        return None
    try:
        steps = tokenizer_steps.steps_of(document)
        return Tokenization(steps=steps, added=tokenizer_steps.added_flags(document))
    except Invalid:
        return None


def template_of(folder: Path) -> Digest | None:
    """The digest of the chat template in a model's folder; None if the folder has no template."""
    for name in chat_template.FILES:
        path = folder / name
        if not path.is_file() or path.stat().st_size > _MAX_SIZE:
            continue
        if path.suffix == ".jinja":
            text = path.read_text(errors="replace")
        else:
            text = chat_template.default_template(_json(path)) or ""
        if text.strip():
            return chat_template.template_digest(text)
    return None


def _json(path: Path) -> Any:
    """The document in a file; None if the file is missing or unreadable. (`Any`: JSON.)"""
    if not path.is_file() or path.stat().st_size > _MAX_SIZE:
        return None
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def _relevant_parts(document: Any) -> dict[str, Any]:
    """The parts of the document that determine the tokens. (`Any`: JSON.)"""
    model = document["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        vocabulary = sorted(vocabulary.items(), key=lambda item: (item[1], item[0]))
    return {
        "type": model.get("type"),
        "vocab": vocabulary,
        "merges": [
            merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model.get("merges") or []
        ],
        "added_tokens": [
            {key: token.get(key) for key in ("id", "content", "special", "lstrip", "rstrip", "normalized")}
            for token in sorted(document.get("added_tokens") or [], key=lambda token: token["id"])
        ],
        **{step: document.get(step) for step in _STEPS},
    }
