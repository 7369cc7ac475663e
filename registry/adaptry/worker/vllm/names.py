"""Names in vLLM: what may be asked for, and under what name an engine has it.

vLLM tells two loaded adapters apart by their names only, and mixes up two under one name. So what it is given has the
digest in its name (`acme/tone@prod@sha256:0123456789ab`), which is also what its answers say as their `model`.
"""

from __future__ import annotations

import re

from adaptry.digest import Digest
from adaptry.errors import InvalidRef
from adaptry.refs import ByDigest, Ref

_LOADED = re.compile(r"(?P<name>[^@]+)(?:@[^@]+)?@sha256:(?P<digest>[0-9a-f]{12,64})(?:~\d+)?")


def asked_for(model: str) -> Ref | None:
    """What a request's `model` names in the registry; None for what is no ref. A name that an engine showed is one."""
    if match := _LOADED.fullmatch(model):
        model = f"{match['name']}@sha256:{match['digest']}"
    try:
        return Ref.parse(model)
    except InvalidRef:
        return None


def loaded_as(model: str, digest: Digest, time: int) -> str:
    """The name for what `model` means now, loaded for the `time`th time (from 1)."""
    exact = isinstance(ref.selector, ByDigest) if (ref := asked_for(model)) else False
    name = model if exact else f"{model}@{digest.brief}"
    return name if time == 1 else f"{name.partition('~')[0]}~{time}"
