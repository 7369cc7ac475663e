"""Adapter names in vLLM: the names that clients request, and the names under which adapters are loaded.

If two adapters are loaded under one name, vLLM's engine ends when requests for both are in one batch (0.32
distinguishes them by name in one place, and by id in another). Loaded names therefore contain the digest
(`acme/tone@prod@sha256:0123456789ab`), and no name is used twice. Responses show the loaded name as their
`model`. The name of several adapters has the version of each:
`acme/tone@sha256:0123456789ab+acme/facts@sha256:abcdef012345=0.5`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef
from adaptry.core.refs import ByDigest
from adaptry.core.stack_ref import StackPart, StackRef, weight_suffix

PLUGIN_PROBE = "adaptry/plugin@who"
"""The plugin refuses a request for this model with the name of its worker, so that `adaptry follow` can
detect it."""
PLUGIN_ANSWER = "Adaptry's plugin serves the adapters of this engine, as the worker "

_LOADED = re.compile(r"(?P<name>[^@]+)(?:@[^@]+)?@sha256:(?P<digest>[0-9a-f]{12,64})(?P<weight>=.*)?")
_TIME = re.compile(r"~\d+$")


def parse_model_name(model: str) -> StackRef | None:
    """The ref, or stack of refs, in a request's `model`; None if it is not one. Loaded names are accepted
    too."""
    parts = _TIME.sub("", model).split("+")
    try:
        return StackRef.parse("+".join(map(_exact, parts)))
    except InvalidRef:
        return None


def _exact(part: str) -> str:
    """A part of a loaded name as a ref by digest; any other part is unchanged."""
    if match := _LOADED.fullmatch(part):
        return f"{match['name']}@sha256:{match['digest']}{match['weight'] or ''}"
    return part


def loaded_name(model: str, target: StackRef, digests: Sequence[Digest]) -> str:
    """The name under which `model` is loaded, if its parts select `digests`. Further loads of the name are
    numbered (`numbered_name`)."""
    if target.single is None:
        parts = zip(target.parts, digests, strict=True)
        return "+".join(f"{_by_digest(part, digest)}{weight_suffix(part.weight)}" for part, digest in parts)
    if isinstance(target.single.selector, ByDigest):
        return model.partition("~")[0]
    return f"{model}@{digests[0].brief}"


def _by_digest(part: StackPart, digest: Digest) -> str:
    is_exact = isinstance(part.ref.selector, ByDigest)
    return str(part.ref) if is_exact else f"{part.ref.name}@{digest.brief}"


def numbered_name(name: str, time: int) -> str:
    """The name for the `time`th load (from 1) of `name`: earlier loads may still be in use."""
    return name if time == 1 else f"{name}~{time}"
