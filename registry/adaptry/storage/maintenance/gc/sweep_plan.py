"""What a sweep will do: decided from what was found, the time and the grace, by a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from adaptry.core.digest import Digest
from adaptry.registry.records import Value
from adaptry.storage.catalog.garbage import Had
from adaptry.storage.maintenance.gc.scan import Found, Orphan


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep will do: rows to mark, to unmark and to take from their owners, manifests to drop, bytes to mark and to delete.

    `before` is the moment since which bytes must have been leaving to be deleted.
    """

    now: datetime
    before: datetime
    mark: tuple[Had, ...]
    unmark: tuple[Had, ...]
    take: tuple[Had, ...]
    revisions: tuple[Digest, ...]
    leave: tuple[Orphan, ...]
    delete: tuple[Orphan, ...]
    held: frozenset[Digest]


class Swept(Value):
    """What was done, or would be: files `taken` from their owners, blobs `deleted` with their `bytes`, `revisions` dropped, and what
    is `waiting` until it is due, with its `waiting_bytes`; abandoned `uploads` dropped."""

    taken: int = 0
    deleted: int = 0
    bytes: int = 0
    revisions: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    uploads: int = 0
    is_dry: bool = False


def plan(found: Found, now: datetime, grace: timedelta) -> Plan:
    """Decides; a pure function. What is found for the first time is marked, and goes when it is found again after the grace."""
    before = now - grace
    return Plan(
        now=now,
        before=before,
        mark=tuple(had for had in found.unneeded if had.since is None),
        unmark=found.needed,
        take=tuple(had for had in found.unneeded if had.since is not None and had.since <= before),
        revisions=found.revisions,
        leave=tuple(one for one in found.orphans if one.since is None),
        delete=tuple(one for one in found.orphans if (one.since or now) <= before),
        held=found.held,
    )


def foreseen(decided: Plan) -> Swept:
    """What a sweep would do by that plan."""
    shared = {had.digest for had in decided.mark}
    alone = {had.digest: had.size for had in decided.take if had.digest not in shared}
    alone |= {one.digest: one.size for one in decided.delete}
    waiting = [one for one in decided.leave if one.digest not in alone]
    return Swept(
        taken=len(decided.take),
        deleted=len(alone),
        bytes=sum(alone.values()),
        revisions=len(decided.revisions),
        waiting=len(decided.mark) + len(waiting),
        waiting_bytes=sum(had.size for had in decided.mark) + sum(one.size for one in waiting),
        is_dry=True,
    )
