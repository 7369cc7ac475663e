"""How each engine extracts a module's path from a factor's name. An engine may accept prefixes that PEFT does
not, and may misread names that PEFT accepts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from adaptry.adapters.methods.extras import PREFIX

NameReader = Callable[[str], str | None]
"""A function from a tensor's name to the module's path in an engine; None if it is not a factor for it."""

_FACTOR = re.compile(r"(?P<path>.+)\.(?:lora_[AB]\.weight|lora_embedding_[AB])")
_NAMED_FACTOR = re.compile(r"(?P<path>.+)\.(?:lora_[AB](?:\.[^.]+)?\.weight|lora_embedding_[AB])")
_NAMED_EMBEDDING = re.compile(r"(?P<path>.+)\.lora_embedding_[AB]\.[^.]+")
_BARE = re.compile(r"layers\.\d+\.|embed_tokens$")
_IN_LAYER = re.compile(r"layers\.\d+\..+")


def one_prefix(name: str) -> str | None:
    """The path after PEFT's prefix, which is optional; the name may contain an adapter's name
    (mistral.rs).
    """
    match = _NAMED_FACTOR.fullmatch(name)
    return match["path"].removeprefix(PREFIX) if match else None


def leading_prefixes(name: str) -> str | None:
    """The path without any occurrence of PEFT's prefix, if the name begins with it (vLLM)."""
    match = _FACTOR.fullmatch(name)
    if match is None:
        return None
    return match["path"].replace(PREFIX, "") if name.startswith(PREFIX) else match["path"]


def any_prefixes_of_models(name: str) -> str | None:
    """The path without any occurrence of PEFT's prefix and of the name of a model's language part. `model`
    may be missing before a layer or an embedding (llama.cpp).
    """
    match = _FACTOR.fullmatch(name)
    if match is None:
        return None
    path = match["path"].replace(PREFIX, "").replace("language_model.", "")
    return f"model.{path}" if _BARE.match(path) else path


def by_layer(name: str) -> str | None:
    """The path with `model` instead of anything before the layer, embedding or head (SGLang)."""
    match = _NAMED_FACTOR.fullmatch(name) or _NAMED_EMBEDDING.fullmatch(name)
    if match is None:
        return None
    if inside := _IN_LAYER.search(match["path"]):
        return f"model.{inside[0]}"
    if "embed_tokens" in match["path"]:
        return "model.embed_tokens"
    return "lm_head" if "lm_head" in match["path"] else None
