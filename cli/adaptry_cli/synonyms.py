"""Names that other tools have for our commands, for errors about unknown commands."""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.core.suggestions import suggestion

_SYNONYMS = {
    "add": ("create", "set"),
    "average": ("combine",),
    "bake": ("merge",),
    "blend": ("combine",),
    "compare": ("diff",),
    "create": ("add", "set"),
    "delete": ("rm", "revoke", "disable", "withdraw"),
    "deploy": ("promote",),
    "describe": ("show",),
    "download": ("pull",),
    "fetch": ("pull",),
    "find": ("search",),
    "fuse": ("merge",),
    "get": ("show", "pull"),
    "info": ("show",),
    "list": ("ls",),
    "log": ("history",),
    "mix": ("combine",),
    "new": ("create", "add"),
    "publish": ("push",),
    "query": ("search",),
    "register": ("push", "add"),
    "remove": ("delete", "rm", "revoke", "disable", "withdraw"),
    "rm": ("delete", "revoke", "disable", "withdraw"),
    "scan": ("check",),
    "start": ("serve",),
    "status": ("show", "whoami"),
    "sync": ("mirror",),
    "update": ("edit", "set"),
    "upload": ("push",),
    "validate": ("check",),
    "versions": ("ls",),
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
