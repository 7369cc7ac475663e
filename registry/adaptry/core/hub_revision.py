"""Names of revisions in the Hub's protocol: `main`, a branch, an alias, a tag, `v3`, a commit id or prefix.

A registry decides which revision a name selects; this module only parses names. A malformed text parses to a
name that selects nothing; for the caller, this makes no difference.
"""

from __future__ import annotations

import re
from typing import Literal

from adaptry.core.errors import InvalidRef, RevisionNotFound
from adaptry.core.git_names import find_name_problem, is_like_version_or_id, to_valid_name
from adaptry.core.lazy_dataclass import dataclass

GRAMMAR = (
    "a revision is main, latest, a branch, an alias, a tag, v3 or 3 (a version), a commit's id (7 to 40 hex"
    " digits), refs/heads/BRANCH or refs/tags/TAG"
)
_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._+-]*[A-Za-z0-9_+-])?")
_VERSION = re.compile(r"v?([1-9][0-9]{0,8})")
_ID = re.compile(r"[0-9a-f]{7,64}")
_MAX_LENGTH = 128
Scope = Literal["any", "branch", "tag"]


@dataclass(frozen=True, slots=True)
class HubRevisionName:
    """The possible meanings of a revision name: the version `number`, a commit whose digest begins with
    `prefix`, or the branch, alias or tag `name`, tried in this order.

    `scope` restricts the kinds of names; `branch` includes aliases.
    """

    name: str
    scope: Scope = "any"
    number: int | None = None
    prefix: str | None = None


def parse_hub_revision(text: str) -> HubRevisionName:
    """Never raises: every text parses."""
    if text.startswith("refs/heads/"):
        return HubRevisionName(text.removeprefix("refs/heads/"), "branch")
    if text.startswith("refs/tags/"):
        tag = text.removeprefix("refs/tags/")
        return HubRevisionName(tag, "tag", number=_number(tag) if tag.startswith("v") else None)
    prefix = text.removeprefix("sha256:")
    return HubRevisionName(text, number=_number(text), prefix=prefix if _ID.fullmatch(prefix) else None)


def parse_branch(text: str) -> str:
    """Checks the name of a new branch. Raises `InvalidRef`."""
    return _name(text, "branch")


def parse_tag(text: str) -> str:
    """Checks the name of a new tag. Raises `InvalidRef`."""
    return _name(text, "tag")


def missing_branch(adapter: object, branch: str, *, is_tag: bool = False) -> RevisionNotFound:
    """The error for a commit to a branch that does not exist. `is_tag`: whether a tag has that name. Creating
    the branch is suggested only if a branch can have that name.
    """
    problem, elsewhere = f"{adapter} has no branch {branch[:80]!a}", "commit to main or to another branch"
    if branch.startswith("refs/pr/"):
        return RevisionNotFound(f"{problem}: this registry has no pull requests; {elsewhere}")
    if is_tag:
        return RevisionNotFound(f"{problem}: it is a tag, which takes no commits; {elsewhere}")
    try:
        parse_branch(branch)
    except InvalidRef:
        return RevisionNotFound(f"{problem}, and no branch can have that name; {elsewhere}")
    return RevisionNotFound(f"{problem}; create the branch, then commit to it")


def _name(text: str, kind: str) -> str:
    if problem := find_name_problem(text):
        raise InvalidRef(
            f"not a name for a {kind}: {text[:80]!r}: {problem}; write {to_valid_name(text)[:_MAX_LENGTH]}"
        )
    segments = text.split("/")
    if len(text) > _MAX_LENGTH or any(not _SEGMENT.fullmatch(part) for part in segments):
        raise InvalidRef(
            f"not a name for a {kind}: {text[:80]!r} (letters, digits, '.', '_', '-', '+' and '/', at most"
            f" {_MAX_LENGTH}); write {to_valid_name(text)[:_MAX_LENGTH]}"
        )
    if segments[0] == "refs":
        raise InvalidRef(f"not a name for a {kind}: {text[:80]!r} (git adds refs/ itself); leave refs/ out")
    if is_like_version_or_id(text):
        raise InvalidRef(
            f"the {kind} {text!r} would be mistaken for something else (digits, v<digits> and 7 or more hex"
            " digits are taken); choose a word such as draft"
        )
    return text


def _number(text: str) -> int | None:
    match = _VERSION.fullmatch(text)
    return int(match[1]) if match else None


def is_commit_id(text: str) -> bool:
    """Whether a text is a commit id or the beginning of one."""
    return bool(_ID.fullmatch(text)) and len(text) <= 40
