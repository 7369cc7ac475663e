"""Names in vLLM: what may be asked for, and under what name an engine has it.

Two that are loaded under one name make vLLM's engine die as soon as requests for both are in one batch (0.32: it tells
them apart by name in one place, and by number in another). So what it is given has the digest in its name
(`acme/tone@prod@sha256:0123456789ab`) and no name is used twice. It is also what answers say as their `model`.
"""

from __future__ import annotations

import re

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef
from adaptry.core.refs import ByDigest, Ref

_LOADED = re.compile(r"(?P<name>[^@]+)(?:@[^@]+)?@sha256:(?P<digest>[0-9a-f]{12,64})(?:~\d+)?")


def parse_model_name(model: str) -> Ref | None:
    """What a request's `model` names in the registry; None for what is no ref. A name that an engine showed is one."""
    if match := _LOADED.fullmatch(model):
        model = f"{match['name']}@sha256:{match['digest']}"
    try:
        return Ref.parse(model)
    except InvalidRef:
        return None


def loaded_name(model: str, digest: Digest) -> str:
    """The name for what `model` means now; whoever loads it again under that name numbers it (`numbered`)."""
    exact = isinstance(ref.selector, ByDigest) if (ref := parse_model_name(model)) else False
    return model.partition("~")[0] if exact else f"{model}@{digest.brief}"


def numbered_name(name: str, time: int) -> str:
    """The name for what is loaded under it for the `time`th time (from 1): what was loaded before may be in use yet."""
    return name if time == 1 else f"{name}~{time}"
