"""Adapter names in vLLM: the names that clients request, and the names that adapters are loaded under.

If two adapters are loaded under one name, vLLM's engine dies once requests for both are in one batch (0.32:
it tells them apart by name in one place, and by id in another). Loaded names therefore contain the digest
(`acme/tone@prod@sha256:0123456789ab`), and no name is used twice. Responses show the loaded name as their
`model`.
"""

from __future__ import annotations

import re

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef
from adaptry.core.refs import ByDigest, Ref

_LOADED = re.compile(r"(?P<name>[^@]+)(?:@[^@]+)?@sha256:(?P<digest>[0-9a-f]{12,64})(?:~\d+)?")


def parse_model_name(model: str) -> Ref | None:
    """The ref that a request's `model` means; None if it is not a ref. Loaded names are accepted too."""
    if match := _LOADED.fullmatch(model):
        model = f"{match['name']}@sha256:{match['digest']}"
    try:
        return Ref.parse(model)
    except InvalidRef:
        return None


def loaded_name(model: str, digest: Digest) -> str:
    """The name to load `model`'s version under. Further loads of the name are numbered (`numbered_name`)."""
    exact = isinstance(ref.selector, ByDigest) if (ref := parse_model_name(model)) else False
    return model.partition("~")[0] if exact else f"{model}@{digest.brief}"


def numbered_name(name: str, time: int) -> str:
    """The name for the `time`th load (from 1) of `name`: earlier loads may still be in use."""
    return name if time == 1 else f"{name}~{time}"
