"""Plans the actions that lead from the actual to the desired adapters of an engine. This is a pure function.

There are never more adapters loaded than slots. A name that was never requested takes no slot from another,
unless it is pinned or preloaded; a requested name takes the slot of the least recently used one. Withdrawn
versions are unloaded first. New adapters are loaded before old ones are unloaded, as long as a slot is free.
Versions that failed before are tried last, so that no other adapter waits for them. Adapters that others
loaded stay, unless they are withdrawn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.records import VersionInfo


@dataclass(frozen=True, slots=True)
class DesiredAdapter:
    """A version that should be served under a name. Pinned names get a slot before all others, then preloaded
    ones, then the most recently used ones (`last_used` is a Unix time). `has_failed`: the last attempt to
    load the version failed."""

    served_as: str
    version: VersionInfo
    is_preloaded: bool = False
    is_pinned: bool = False
    last_used: float | None = None
    has_failed: bool = False

    @property
    def digest(self) -> Digest:
        return self.version.digest


@dataclass(frozen=True, slots=True)
class ActualAdapter:
    """The adapter that an engine has loaded under a name. `is_ours`: this worker may unload it."""

    served_as: str
    digest: Digest | None
    is_ours: bool


@dataclass(frozen=True, slots=True)
class LoadAction:
    """Load a version under a name that is free."""

    desired: DesiredAdapter


@dataclass(frozen=True, slots=True)
class SwapAction:
    """Replace the version that a name stands for."""

    desired: DesiredAdapter
    actual: ActualAdapter


@dataclass(frozen=True, slots=True)
class UnloadAction:
    """Unload a name that should no longer be served."""

    actual: ActualAdapter


FollowAction = LoadAction | SwapAction | UnloadAction


@dataclass(frozen=True, slots=True)
class FollowPlan:
    """The actions in order, and the desired adapters for which no slot is left."""

    actions: tuple[FollowAction, ...]
    without_slot: tuple[DesiredAdapter, ...] = ()


def plan_actions(
    desired: Iterable[DesiredAdapter],
    actual: Sequence[ActualAdapter],
    slots: int | None,
    withdrawn: Collection[Digest] = (),
) -> FollowPlan:
    """Plans the actions that lead from `actual` to `desired` (with unique names); withdrawn versions are
    never loaded.
    """
    recalled = [one for one in actual if one.digest in withdrawn]
    staying = [one for one in actual if one not in recalled]
    by_name = {one.served_as: one for one in staying}
    servable = [one for one in desired if one.digest not in withdrawn]
    servable.sort(key=lambda one: _slot_order(one, is_loaded=one.served_as in by_name))
    watched = {one.served_as for one in servable}
    ours = [one for one in staying if one.is_ours or one.served_as in watched]
    capacity = None if slots is None else max(0, slots - (len(staying) - len(ours)))
    kept = servable if capacity is None else servable[:capacity]
    names = {one.served_as for one in kept}
    stale = [one for one in ours if one.served_as not in names]
    swaps = [
        SwapAction(one, by_name[one.served_as])
        for one in kept
        if one.served_as in by_name and by_name[one.served_as].digest != one.digest
    ]
    loads = [LoadAction(one) for one in kept if one.served_as not in by_name]
    retries: list[FollowAction] = [
        *(one for one in swaps if one.desired.has_failed),
        *(one for one in loads if one.desired.has_failed),
    ]
    actions: list[FollowAction] = [UnloadAction(one) for one in recalled]
    actions += [one for one in swaps if not one.desired.has_failed]
    occupied = len(staying)
    for load in loads:
        if load.desired.has_failed:
            continue
        while slots is not None and occupied >= slots and stale:
            actions.append(UnloadAction(stale.pop(0)))
            occupied -= 1
        actions.append(load)
        occupied += 1
    actions += [UnloadAction(one) for one in stale]
    actions += retries
    return FollowPlan(tuple(actions), () if capacity is None else tuple(servable[capacity:]))


def pending_loads(plan: FollowPlan) -> dict[tuple[str, Digest], VersionInfo]:
    """Every version that a plan loads, by the name under which it is served."""
    found: dict[tuple[str, Digest], VersionInfo] = {}
    for action in plan.actions:
        if isinstance(action, LoadAction | SwapAction):
            version = action.desired.version
            found[action.desired.served_as, version.digest] = version
    return found


def confirmed_only(plan: FollowPlan, confirmed: set[tuple[str, Digest]]) -> FollowPlan:
    """The actions that may run while the registry is down: unloads, and loads that it confirmed before."""
    actions = [
        action
        for action in plan.actions
        if isinstance(action, UnloadAction) or (action.desired.served_as, action.desired.digest) in confirmed
    ]
    return FollowPlan(tuple(actions), plan.without_slot)


def _slot_order(one: DesiredAdapter, *, is_loaded: bool) -> tuple[bool, bool, bool, float, str]:
    """The order in which desired adapters get slots."""
    is_idle = not is_loaded and one.last_used is None
    return not one.is_pinned, not one.is_preloaded, is_idle, -(one.last_used or 0.0), one.served_as
