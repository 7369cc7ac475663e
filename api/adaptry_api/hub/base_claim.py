"""Which base an upload means, where its config does not say: a trainer on a folder of its own writes that
folder's name, and some tools write no config. The model card knows better then.
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
"""The files that are looked at."""


def claimed_base(read: Callable[[str], bytes]) -> BaseClaim | None:
    """The base in the card; None if the config has a name, or the card none. `read` gives a file or no bytes.

    A config or card that cannot be read claims nothing; whoever admits the files says what is wrong with
    them.
    """
    if is_base_name(_in_config(read(CONFIG))):
        return None
    with suppress(Invalid):
        named = read_card(read(README)).base_models
        if named and is_base_name(named[0]):
            return BaseClaim(name=named[0])
    return None


def is_base_name(text: object) -> bool:
    """Whether the base goes by a name, rather than by a folder of whoever trained on it."""
    try:
        return isinstance(text, str) and bool(parse_base_name(text))
    except InvalidRef:
        return False


def _in_config(data: bytes) -> object:
    with suppress(ValueError, RecursionError):
        config = json.loads(data)
        return config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return None
