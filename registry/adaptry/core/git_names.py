"""Names that git refuses for a branch or tag, or interprets differently: the rules of `git check-ref-format`.

Clients of the Hub pass our aliases, branches and tags to git and to tools with the same rules, so new names
must follow them. Names stored by older registries stay valid: only new names are checked. Source:
git-check-ref-format(1), gitrevisions(7), git 2.43.
"""

from __future__ import annotations

import re

from adaptry.core.lazy_pattern import lazy_pattern

_FORBIDDEN = lazy_pattern(r"[\x00-\x20\x7f~^:?*\[\\]")
_PSEUDO_REF = lazy_pattern(r"(?:[A-Za-z]+_)*head", re.IGNORECASE)
"""HEAD, FETCH_HEAD, ORIG_HEAD, MERGE_HEAD, …: special to git, on some file systems in any case."""
_LIKE_VERSION_OR_ID = lazy_pattern(r"[0-9]+|v0*[1-9][0-9]*|[0-9a-f]{7,64}", re.IGNORECASE)
_RESERVED = frozenset({"main", "latest"})


def find_name_problem(name: str) -> str | None:
    """Why `name` cannot name a new alias, branch or tag; None if git accepts it."""
    parts = name.split("/")
    if match := _FORBIDDEN.search(name):
        return f"{match[0]!a} is not allowed in it"
    if ".." in name:
        return "'..' means a range of commits"
    if "@{" in name or name == "@":
        return "'@{' and a lone '@' mean something else"
    if any(part.lower().endswith(".lock") for part in parts):
        return "names that end in '.lock' are git's lock files"
    if any(part.startswith(".") or part.endswith(".") for part in parts):
        return "it starts or ends with '.'"
    if name.startswith("-"):
        return "it starts with '-', as options do"
    if "" in parts:
        return "it starts or ends with '/', or has '//' in it"
    if _PSEUDO_REF.fullmatch(name) or name.lower() in _RESERVED:
        return f"{name!r} means something else"
    return None


def is_like_version_or_id(name: str) -> bool:
    """Whether people would take `name` for a version or an id: `3`, `v3`, `V3`, `v03`, `ABCDEF0`.
    Versions begin at 1, and `v0` is a common tag on the Hub.
    """
    return bool(_LIKE_VERSION_OR_ID.fullmatch(name))


def to_valid_name(name: str) -> str:
    """A name similar to `name` for a new alias, branch or tag; `draft` if no character remains."""
    near = re.sub(r"[^A-Za-z0-9._/+-]+", "-", name)
    near = re.sub(r"\.{2,}", ".", near)
    parts = [re.sub(r"(?:\.lock)+$", "", part, flags=re.IGNORECASE).strip(".-") for part in near.split("/")]
    near = "/".join(filter(None, parts))
    if _PSEUDO_REF.fullmatch(near) or near.lower() in _RESERVED or is_like_version_or_id(near):
        near = f"my-{near.lower()}"
    return near if near and find_name_problem(near) is None else "draft"
