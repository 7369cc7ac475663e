"""The life of a version: its states, and what each allows. Pure functions of values.

The table is what every part of a registry decides by; `docs/states.md` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adaptry.core.errors import Conflict, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName

State = Literal["active", "deprecated", "yanked", "quarantined", "revoked"]
Readers = Literal["everyone", "writers", "administrators"]


@dataclass(frozen=True, slots=True)
class StateRule:
    """What a state allows. `readers`: who may read the files, among those who may read the adapter at all."""

    is_latest: bool
    is_searchable: bool
    allows_aliases: bool
    readers: Readers


STATE_RULES: Mapping[State, StateRule] = {
    "active": StateRule(is_latest=True, is_searchable=True, allows_aliases=True, readers="everyone"),
    "deprecated": StateRule(is_latest=False, is_searchable=True, allows_aliases=True, readers="everyone"),
    "yanked": StateRule(is_latest=False, is_searchable=False, allows_aliases=False, readers="everyone"),
    "quarantined": StateRule(is_latest=False, is_searchable=False, allows_aliases=False, readers="writers"),
    "revoked": StateRule(
        is_latest=False, is_searchable=False, allows_aliases=False, readers="administrators"
    ),
}

LATEST = tuple(state for state, rule in STATE_RULES.items() if rule.is_latest)
SEARCHABLE = tuple(state for state, rule in STATE_RULES.items() if rule.is_searchable)
WITHDRAWN = tuple(state for state, rule in STATE_RULES.items() if rule.readers != "everyone")
"""States in which files are held back: nothing is made, merged or copied from them."""


def require_alias_allowed(alias: str, state: State, number: int) -> None:
    """Raises `Conflict` where an alias may not be moved to a version in this state."""
    if not STATE_RULES[state].allows_aliases:
        raise Conflict(
            f"version {number} is {state}; {alias} can only point at an active or deprecated version"
        )


def may_read_files(identity: Identity, name: AdapterName, state: State) -> bool:
    """Whether someone who may read the adapter may read the files of a version in this state."""
    match STATE_RULES[state].readers:
        case "everyone":
            return True
        case "writers":
            return identity.may_write(name)
        case "administrators":
            return identity.may_undo_recall(name)


def require_change_allowed(identity: Identity, name: AdapterName, number: int, was: State, to: State) -> None:
    """Raises `PermissionDenied` where someone who may write to the adapter may not make this change: whoever
    writes may recall a version, and only an administrator takes a recall back.
    """
    if was == "revoked" and to != "revoked" and not identity.may_undo_recall(name):
        raise PermissionDenied(
            f"{name}@{number} is revoked, and {identity.name} may not take that back; "
            f"ask for an admin token of {name.namespace!r}"
        )
