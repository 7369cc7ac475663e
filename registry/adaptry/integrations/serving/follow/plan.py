"""From what an engine has and what it should have to the steps in between. Pure.

Never more than the slots at once; what is withdrawn goes first; what comes is loaded before what goes is unloaded, wherever
a slot is free for that; what others loaded is left alone, unless it is withdrawn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from adaptry.core.digest import Digest
from adaptry.registry.records import VersionInfo


@dataclass(frozen=True, slots=True)
class DesiredAdapter:
    """A version to be served under a name. Those that are `first` are the last to be left out."""

    served_as: str
    version: VersionInfo
    is_preloaded: bool = False

    @property
    def digest(self) -> Digest:
        return self.version.digest


@dataclass(frozen=True, slots=True)
class ActualAdapter:
    """What an engine has under a name; `is_ours` where this worker may unload it."""

    served_as: str
    digest: Digest | None
    is_ours: bool


@dataclass(frozen=True, slots=True)
class LoadAction:
    """A name that is free."""

    desired: DesiredAdapter


@dataclass(frozen=True, slots=True)
class SwapAction:
    """A name that is taken by another version."""

    desired: DesiredAdapter
    actual: ActualAdapter


@dataclass(frozen=True, slots=True)
class UnloadAction:
    """A name that is no longer to be answered."""

    actual: ActualAdapter


FollowAction = LoadAction | SwapAction | UnloadAction


@dataclass(frozen=True, slots=True)
class FollowPlan:
    """The steps in turn, and what there is no slot for."""

    actions: tuple[FollowAction, ...]
    without_slot: tuple[DesiredAdapter, ...] = ()


def plan_actions(
    wanted: Iterable[DesiredAdapter],
    had: Sequence[ActualAdapter],
    slots: int | None,
    withdrawn: Collection[Digest] = (),
) -> FollowPlan:
    """How to get from `had` to `wanted`, whose names differ; of what is withdrawn nothing is loaded."""
    recalled = [one for one in had if one.digest in withdrawn]
    kept = [one for one in had if one not in recalled]
    places = {one.served_as: one for one in kept}
    asked = [one for one in wanted if one.digest not in withdrawn]
    asked.sort(key=lambda one: (not one.is_preloaded, one.served_as not in places, one.served_as))
    watched = {one.served_as for one in asked}
    ours = [one for one in kept if one.is_ours or one.served_as in watched]
    room = None if slots is None else max(0, slots - (len(kept) - len(ours)))
    taken = asked if room is None else asked[:room]
    names = {one.served_as for one in taken}
    stale = [one for one in ours if one.served_as not in names]
    steps: list[FollowAction] = [UnloadAction(one) for one in recalled]
    steps += [
        SwapAction(one, places[one.served_as])
        for one in taken
        if one.served_as in places and places[one.served_as].digest != one.digest
    ]
    occupied = len(kept)
    for one in taken:
        if one.served_as in places:
            continue
        while slots is not None and occupied >= slots and stale:
            steps.append(UnloadAction(stale.pop(0)))
            occupied -= 1
        steps.append(LoadAction(one))
        occupied += 1
    steps += [UnloadAction(one) for one in stale]
    return FollowPlan(tuple(steps), () if room is None else tuple(asked[room:]))
