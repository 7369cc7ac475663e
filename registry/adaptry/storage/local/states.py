"""Changes the states of versions in a local registry: by compare-and-swap, with a reason and an event."""

from __future__ import annotations

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict
from adaptry.core.lifecycle import STATE_RULES, require_change_allowed
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.storage.catalog import events, states
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.version_info import info
from adaptry.storage.catalog.versions import to_record
from adaptry.storage.local.context import RegistryContext


def set_state(
    context: RegistryContext, name: AdapterName, revision: Digest, change: StateChange, was: int
) -> VersionInfo:
    """Implements `Versions.set_state`."""
    ref = Ref.of_revision(name, revision)
    with context.write() as tx:
        adapter = context.writable_adapter(tx, name, "state.set", state=change.state)
        columns = context.resolve(tx, ref)
        seen = info(tx, columns)
        if is_in_state(seen, change):
            return context.hide_base(tx, seen)
        require_change_allowed(context.identity, name, seen.number, seen.state, change.state, context.clock())
        _require_seen(seen, was)
        _require_successor(context, tx, seen, change)
        now, by = context.clock(), context.identity.name
        generation = states.put(tx, to_record(columns), change, now, by)
        events.record(
            tx,
            f"version.{'restored' if change.state == 'active' else change.state}",
            at=now,
            by=by,
            adapter=adapter,
            number=seen.number,
            detail={
                "digest": seen.digest,
                "was": seen.state,
                "reason": change.reason,
                "successor": change.successor,
                "aliases": ", ".join(seen.aliases) or None,
                "generation": generation,
            },
        )
        return context.hide_base(tx, info(tx, context.resolve(tx, ref)))


def _require_successor(
    context: RegistryContext, tx: Transaction, seen: VersionInfo, change: StateChange
) -> None:
    """Raises `Conflict` for an unusable successor, `NotFound` for a missing one."""
    if change.successor is None:
        return
    to = info(tx, context.resolve(tx, Ref.parse(change.successor)))
    if (to.name, to.number) == (seen.name, seen.number):
        raise Conflict(f"{seen.label} cannot be its own successor; name another version")
    if not STATE_RULES[to.state].allows_aliases:
        raise Conflict(
            f"the successor {change.successor} is {to.state}; name an active or deprecated version"
        )


def is_in_state(seen: VersionInfo, change: StateChange) -> bool:
    """Whether a change of state would change nothing. For an active version, the reason does not matter."""
    if seen.state != change.state or change.state == "active":
        return seen.state == change.state
    last = seen.last_state_change
    return last is not None and (last.reason, last.successor) == (change.reason, change.successor)


def _require_seen(seen: VersionInfo, was: int) -> None:
    if seen.state_generation != was:
        raise Conflict(
            f"the state of {seen.label} has changed since you read it (generation {was}): it is {seen.state}"
            f" (generation {seen.state_generation}); look again and retry"
        )
