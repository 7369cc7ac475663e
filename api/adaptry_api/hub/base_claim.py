"""The base that an upload declares, if its config does not: a training from a local folder writes the
folder's name, and some tools write no config. Then the model card names the base.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

from adaptry.adapters.formats import CONFIG
from adaptry.core.errors import Invalid, InvalidRef
from adaptry.core.manifest import BaseClaim
from adaptry.core.refs import parse_base_name
from adaptry_api.hub.card import README, read_card

CLAIM_FILES = (CONFIG, README)
"""The files that are read."""


def claimed_base(read: Callable[[str], bytes]) -> BaseClaim | None:
    """The base in the card; None if the config names one, or the card names none. `read` returns a file's
    bytes, empty if it does not exist.

    A malformed config or card declares no base; admission of the files reports the fault.
    """
    if is_base_name(_in_config(read(CONFIG))):
        return None
    with suppress(Invalid):
        named = read_card(read(README)).base_models
        if named and is_base_name(named[0]):
            return BaseClaim(name=named[0])
    return None


def is_base_name(text: object) -> bool:
    """Whether the base has a name, rather than a path on the trainer's machine."""
    try:
        return isinstance(text, str) and bool(parse_base_name(text))
    except InvalidRef:
        return False


def _in_config(data: bytes) -> object:
    with suppress(ValueError, RecursionError):
        config = json.loads(data)
        return config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return None
