"""The licences that the head of a README states: `license: mit`, or a list of them."""

from __future__ import annotations

import re

from adaptry.core.errors import Invalid
from adaptry.core.readme_head import README_HEAD

MAX_README = 1 << 20
"""Bytes of a README that is read for its licence."""
_FIELD = re.compile(r"^license:.*(?:\r?\n(?:[ \t-].*)?)*", re.MULTILINE)
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,55}")
_MAX_LICENCES = 8


def stated_licences(readme: bytes) -> tuple[str, ...]:
    """The licences, as they are written; none if the field is malformed, since names are never guessed.

    Only the field itself is parsed: other keys of the mapping begin at the start of a line.
    """
    if b"license:" not in readme:
        return ()
    head = README_HEAD.match(readme.decode("utf-8-sig", "replace"))
    field = _FIELD.search(head[2]) if head else None
    if field is None:
        return ()
    from adaptry.core.plain_yaml import SHORT, loads_in_process  # PyYAML takes time to import

    if len(field[0]) > SHORT:
        return ()
    try:
        stated = loads_in_process(field[0], "the licence")["license"]
    except Invalid:
        return ()
    several = stated if isinstance(stated, list) else [stated]
    found = (one for one in several if isinstance(one, str) and _LICENCE.fullmatch(one))
    return tuple(dict.fromkeys(found))[:_MAX_LICENCES]
