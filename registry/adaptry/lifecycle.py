"""The life of a version: its states, and the rules of what may happen in each. Pure functions of values."""

from __future__ import annotations

from typing import Literal

from adaptry.errors import Conflict

State = Literal["active", "deprecated", "yanked", "quarantined", "revoked"]

ADMITTED: frozenset[State] = frozenset({"active", "deprecated"})
"""States in which a version may be pointed at by an alias."""


def may_point(alias: str, state: State, number: int) -> None:
    """Raises `Conflict` where an alias may not be moved to a version in this state."""
    if state not in ADMITTED:
        raise Conflict(
            f"version {number} is {state}; {alias} can only point at an active or deprecated version"
        )
