"""Changing the state of a version: look, decide, compare and swap.

A verb over the waist. Between the look and the change someone else may change it; then this is a `Conflict`
and nothing happened.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptry.core.errors import Invalid
from adaptry.core.lifecycle import State
from adaptry.core.refs import Latest, Ref
from adaptry.registry.interface import Registry
from adaptry.registry.records import StateChange, VersionInfo


@dataclass(frozen=True, slots=True)
class StateChangeResult:
    """The version as it stands now, and the state it was in; `is_change` is False if it stood so before."""

    version: VersionInfo
    was: State
    is_change: bool


def change_state(registry: Registry, ref: Ref, change: StateChange) -> StateChangeResult:
    """Gives the version that `ref` means now a state.

    Raises `Invalid` for a bare name, whose meaning the change itself may move, and as `versions.set_state`.
    """
    if isinstance(ref.selector, Latest):
        raise Invalid(
            f"{ref.name} means another version once this one is gone; say which: {ref.name}@NUMBER,"
            " an alias, or a digest"
        )
    seen = registry.versions.get(ref)
    version = registry.versions.set_state(ref.name, seen.digest, change, seen.state_generation)
    return StateChangeResult(version, seen.state, version.standing != seen.standing)
