"""Engines with holds and processes with leases, which keep entries from being evicted, and their sizes."""

from __future__ import annotations

import shlex

from adaptry.core.digest import Digest
from adaptry.core.display import format_count
from adaptry.core.files.locks import FileLock
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.cache import engine_holds
from adaptry.integrations.serving.cache.layout import CacheEntry, CacheLayout

_SHOWN = 5
_PROCESSES = "processes that are running"


@dataclass(frozen=True, slots=True)
class SpaceUser:
    """An engine (its `address`), or the running processes together (no `address`), with the entries that they
    use and the sizes of their stacks, in bytes."""

    name: str
    address: str | None
    entries: tuple[CacheEntry, ...]
    stacks: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries) + sum(self.stacks)

    def sentence(self) -> str:
        """`vllm at http://localhost:8000 may read acme/tone@3 again: 120,000 bytes`, and how to end this."""
        labels = [entry.version.label for entry in self.entries]
        shown = ", ".join(labels[:_SHOWN]) + (f" and {len(labels) - _SHOWN} more" if labels[_SHOWN:] else "")
        if self.address is None:
            stacks = [format_count(len(self.stacks), "stack")] if self.stacks else []
            return f"{self.name} use {' and '.join(filter(None, [shown, *stacks]))}: {self.size:,} bytes"
        return (
            f"{self.name} may read {shown} again: {self.size:,} bytes, kept until it has unloaded them; if"
            f" that engine is gone: adaptry cache gc --engine-gone {shlex.quote(self.address)}"
        )


def space_users(layout: CacheLayout) -> tuple[SpaceUser, ...]:
    """All users, the largest first. An entry with two users counts for both."""
    entries = {entry.digest: entry for entry in layout.entries()}
    engines: dict[str, tuple[str, list[CacheEntry]]] = {}
    held = set()
    for digest, _, found in engine_holds.all_holds(layout):
        if entry := entries.get(digest):
            held.add(digest)
            engines.setdefault(found.engine_label, (found.address, []))[1].append(entry)
    users = [SpaceUser(label, address, tuple(used)) for label, (address, used) in engines.items()]
    leased = tuple(
        entry for entry in entries.values() if entry.digest not in held and is_leased(layout, entry.digest)
    )
    stacks = layout.stacks.sizes()
    users += [SpaceUser(_PROCESSES, None, leased, stacks)] if leased or stacks else []
    return tuple(sorted(users, key=lambda user: (-user.size, user.name)))


def is_leased(layout: CacheLayout, digest: Digest) -> bool:
    """Whether any process on this machine has a lease."""
    if not layout.lease_file(digest).exists():
        return False
    lease = FileLock.try_exclusive(layout.lease_file(digest))
    if lease is not None:
        lease.release()
    return lease is None
