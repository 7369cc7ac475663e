"""Roles: named sets of actions, in one table.

A namespace's members have one of `MEMBER_ROLES`. `reader`, `writer` and `admin` are the roles of tokens from
versions without members, and have their old meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from adaptry.core.access.actions import ACTIONS, Action

Actions = frozenset[Action]

_VIEWER: Final[Actions] = frozenset({"read"})
_CONTRIBUTOR: Final[Actions] = _VIEWER | {"push", "evidence.add", "job.run"}
_WRITER: Final[Actions] = _CONTRIBUTOR | {"alias.move", "state.set", "delete"}
_MAINTAINER: Final[Actions] = _WRITER | {"approve"}
_WORKER: Final[Actions] = _VIEWER | {"worker.report"}

ROLES: Mapping[str, Actions] = {
    "admin": _WRITER | {"policy.manage", "policy.override", "worker.report", "admin"},
    "owner": frozenset(ACTIONS) - {"admin"},
    "maintainer": _MAINTAINER,
    "writer": _WRITER,
    "contributor": _CONTRIBUTOR,
    "worker": _WORKER,
    "viewer": _VIEWER,
    "reader": _VIEWER,
}
"""The strongest first."""

MEMBER_ROLES = ("viewer", "contributor", "maintainer", "owner")


def actions_of(permission: str) -> Actions:
    """The actions that a role or a single action allows; empty for an unknown text."""
    if permission in ROLES:
        return ROLES[permission]
    return frozenset({cast(Action, permission)}) if permission in ACTIONS else frozenset()


def strongest_role(permissions: tuple[str, ...]) -> str:
    """The first role of the table that is among the permissions; `custom` if they are only actions, `reader`
    if they are empty.
    """
    named = next((role for role in ROLES if role in permissions), None)
    return named or ("custom" if permissions else "reader")
