"""Names that other tools have for our commands, for errors about unknown commands."""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.core.suggestions import suggestion

_SYNONYMS = {
    "add": ("create", "set"),
    "create": ("add", "set"),
    "delete": ("rm", "revoke", "disable", "withdraw"),
    "describe": ("show",),
    "download": ("pull",),
    "get": ("show", "pull"),
    "info": ("show",),
    "list": ("ls",),
    "new": ("create", "add"),
    "register": ("push", "add"),
    "remove": ("delete", "rm", "revoke", "disable", "withdraw"),
    "rm": ("delete", "revoke", "disable", "withdraw"),
    "update": ("edit", "set"),
    "upload": ("push",),
    "view": ("show",),
}


def suggested_command(name: str, known: Sequence[str]) -> str:
    """`; did you mean ls?`, to append to the error that there is no command of that name; empty if none of
    the known commands is close in spelling or meaning.
    """
    for synonym in _SYNONYMS.get(name.lower(), ()):
        if synonym in known:
            return f"; did you mean {synonym}?"
    return suggestion(name, known, cutoff=0.75)
