"""The states of a version, and what each allows: pure functions of values.

Every part of a registry uses this table; `docs/states.md` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from adaptry.core.access.conditions import Facts
from adaptry.core.errors import Conflict, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.core.states import State as State

Readers = Literal["everyone", "maintainers and owners", "owners"]


@dataclass(frozen=True, slots=True)
class StateRule:
    """The permissions of a state. `readers` is which of the adapter's readers may read the version's
    files.
    """

    is_latest: bool
    is_searchable: bool
    allows_aliases: bool
    readers: Readers


STATE_RULES: Mapping[State, StateRule] = {
    "active": StateRule(is_latest=True, is_searchable=True, allows_aliases=True, readers="everyone"),
    "deprecated": StateRule(is_latest=False, is_searchable=True, allows_aliases=True, readers="everyone"),
    "yanked": StateRule(is_latest=False, is_searchable=False, allows_aliases=False, readers="everyone"),
    "quarantined": StateRule(
        is_latest=False, is_searchable=False, allows_aliases=False, readers="maintainers and owners"
    ),
    "revoked": StateRule(is_latest=False, is_searchable=False, allows_aliases=False, readers="owners"),
}

LATEST = tuple(state for state, rule in STATE_RULES.items() if rule.is_latest)
SEARCHABLE = tuple(state for state, rule in STATE_RULES.items() if rule.is_searchable)
WITHDRAWN = tuple(state for state, rule in STATE_RULES.items() if rule.readers != "everyone")
"""States in which files are withheld: nothing may be derived, merged or copied from them."""


def require_alias_allowed(alias: str, state: State, number: int) -> None:
    """Raises `Conflict` if an alias must not point at a version in this state."""
    if not STATE_RULES[state].allows_aliases:
        raise Conflict(
            f"version {number} is {state}; {alias} can only point at an active or deprecated version"
        )


def may_read_files(identity: Identity, name: AdapterName, state: State, now: datetime) -> bool:
    """Whether a caller who may read the adapter may read the files of a version in this state."""
    match STATE_RULES[state].readers:
        case "everyone":
            return True
        case "maintainers and owners":
            return identity.may("state.set", name, Facts(now=now))
        case "owners":
            return identity.may("policy.manage", name, Facts(now=now))


def require_change_allowed(
    identity: Identity, name: AdapterName, number: int, was: State, to: State, now: datetime
) -> None:
    """Raises `PermissionDenied` if someone who may set states may not make this change: all of them
    may recall a version, but only managers of the namespace's policy may take a recall back.
    """
    if was == "revoked" and to != "revoked" and not identity.may("policy.manage", name, Facts(now=now)):
        raise PermissionDenied(
            f"{name}@{number} is revoked, and {identity.name} may not undo that (policy.manage); "
            f"ask an owner of {name.namespace!r}"
        )
