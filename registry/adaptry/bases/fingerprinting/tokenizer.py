"""A tokenizer's identity: the same text gives the same tokens, whatever version of the tools wrote the files.

Taken from `tokenizer.json` without what does not change tokens (truncation, padding), with merges in one
of the two spellings they have had. A SentencePiece model that stands
alone is identified by its bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.strictjson import canonical

_FAST = "tokenizer.json"
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_MAX_SIZE = 128 << 20
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def tokenizer_digest(folder: Path) -> Digest | None:
    """The digest of the tokenizer beside a model; None where there is none that we read."""
    if (folder / _FAST).is_file():
        if (folder / _FAST).stat().st_size > _MAX_SIZE:
            return None
        # A tokenizer is evidence, never a condition: an odd one is no reason to refuse a base.
        try:
            return Digest.of(canonical(_essence(json.loads((folder / _FAST).read_bytes()))))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return None
    for name in _SENTENCEPIECE:
        if (folder / name).is_file():
            return Digest.of((folder / name).read_bytes())
    return None


def _essence(document: Any) -> dict[str, Any]:
    """What decides the tokens. (`Any`: JSON.)"""
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
