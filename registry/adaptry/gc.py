"""Taking out of a registry what nobody needs: files that no version has any more, or never had, and their bytes.

What is found is marked first; what was marked long enough ago (the grace) and is found again goes: rows, then bytes. Whoever
begins to need a marked thing takes the mark off, in the transaction that makes it needed, so that nothing that is needed goes,
whatever the clocks say and however many servers and sweeps there are; the grace is there for pushes that are slow.

Needed is what a commit of an adapter names (versions, aliases and branches are commits), what a stored base names, what is being
sent, and what a version that is there was made from, even where that was deleted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar

from adaptry.blobs import BlobStore
from adaptry.catalog import answers, leaving, unneeded
from adaptry.catalog.database import Catalog
from adaptry.catalog.unneeded import Had
from adaptry.digest import Digest
from adaptry.errors import Denied, NotFound
from adaptry.failpoints import reach
from adaptry.local import LocalRegistry
from adaptry.local.once import KEPT
from adaptry.local.uploads import purge
from adaptry.progress import Progress, no_progress
from adaptry.records import Value

GRACE = timedelta(hours=24)
_AT_ONCE = 200
_DELETED_AT_ONCE = 64
_HASTE = 30.0
"""Seconds for deleting what was said to be going: a quarter of what others wait before they think we died."""
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Orphan:
    """Stored bytes that nobody has, and since when they are marked as leaving."""

    digest: Digest
    size: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a survey saw. `needed` are files that were marked and are needed after all; `revisions` are manifests that no adapter
    has, and `held` the files of those that something was made from."""

    unneeded: tuple[Had, ...] = ()
    needed: tuple[Had, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    revisions: tuple[Digest, ...] = ()
    held: frozenset[Digest] = frozenset()


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


def collect(
    registry: LocalRegistry,
    *,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> Swept:
    """Surveys, plans and sweeps; again is no harm, also at the same time elsewhere. Raises `Denied` to who may not administer.

    With `dry_run` nothing changes and the answer says what would. Without grace, what is found is surveyed twice and goes at once.
    """
    if not registry.identity.may_administer:
        raise Denied(f"{registry.identity.name} may not sweep; it takes an administrator of all namespaces")
    catalog, blobs = registry.catalog, registry.blobs
    if dry_run:
        return foreseen(plan(survey(catalog, blobs, progress), registry.clock(), grace))
    uploads = purge(catalog, blobs, registry.clock())
    swept = sweep(catalog, blobs, plan(survey(catalog, blobs, progress), registry.clock(), grace), progress)
    if not grace and swept.waiting:
        again = sweep(
            catalog, blobs, plan(survey(catalog, blobs, progress), registry.clock(), grace), progress
        )
        swept = again.model_copy(
            update={
                name: getattr(swept, name) + getattr(again, name)
                for name in ("taken", "deleted", "bytes", "revisions")
            }
        )
    return swept.model_copy(update={"uploads": uploads})


def survey(catalog: Catalog, blobs: BlobStore, progress: Progress = no_progress) -> Found:
    """Looks at every owner, every manifest that none has, and every blob; changes nothing."""
    revisions: list[Digest] = []
    held: set[Digest] = set()
    for revision in _unowned(catalog):
        if revision.is_parent:
            held |= revision.files
        else:
            revisions.append(revision.digest)
    # Blobs are listed before it is asked who has them: what comes meanwhile is not seen, and what is seen may be had by then.
    orphans = tuple(_orphans(catalog, blobs, held, progress))
    spare: list[Had] = []
    needed: list[Had] = []
    for owner in _owners(catalog):
        with catalog.read() as tx:
            found, marked = unneeded.of_owner(tx, owner)
        spare += found
        needed += marked
    reach("gc.after_survey")
    return Found(tuple(spare), tuple(needed), orphans, tuple(revisions), frozenset(held))


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


def sweep(catalog: Catalog, blobs: BlobStore, decided: Plan, progress: Progress = no_progress) -> Swept:
    """Carries a plan out: marks, rows, then bytes. What became needed since the survey stays."""
    sizes = {one.digest: one.size for one in decided.delete} | {had.digest: had.size for had in decided.take}
    for some in _batches(decided.unmark):
        with catalog.write() as tx:
            unneeded.unmark(tx, some)
    for some in _batches(decided.mark):
        with catalog.write() as tx:
            unneeded.mark(tx, some, decided.now)
    for orphans in _batches(decided.leave):
        with catalog.write() as tx:
            leaving.mark(tx, leaving.nobodys(tx, [one.digest for one in orphans]), decided.now)
    reach("gc.after_marks")
    taken = dropped = 0
    for some in _batches(decided.take):
        with catalog.write() as tx:
            taken += unneeded.let_go(tx, some)
    for digests in _batches(decided.revisions):
        with catalog.write() as tx:
            dropped += unneeded.forget_revisions(tx, digests)
    with catalog.write() as tx:
        answers.forget(tx, decided.now - KEPT)
    reach("gc.after_rows")
    deleted = _delete_bytes(catalog, blobs, decided, progress)
    waiting = {one.digest: one.size for one in decided.leave if one.digest not in deleted}
    reach("gc.after_all")
    return Swept(
        taken=taken,
        deleted=len(deleted),
        bytes=sum(sizes.get(digest, 0) for digest in deleted),
        revisions=dropped,
        waiting=len(decided.mark) + len(waiting),
        waiting_bytes=sum(had.size for had in decided.mark) + sum(waiting.values()),
    )


def _delete_bytes(catalog: Catalog, blobs: BlobStore, decided: Plan, progress: Progress) -> set[Digest]:
    """All bytes that are due, some at a time: said to be going, deleted, said to be gone."""
    deleted: set[Digest] = set()
    after = ""
    while True:
        patience = _ticks() + _HASTE
        with catalog.write() as tx:
            some = leaving.due(tx, decided.before, after, _DELETED_AT_ONCE)
            if not some:
                return deleted
            after = some[-1].hex
            going, began = leaving.go(tx, some, decided.held)
        reach("gc.after_going")
        done: list[Digest] = []
        try:
            for digest in going:
                if _ticks() > patience:  # we were asleep, and others may believe us dead
                    break
                blobs.delete(digest)
                done.append(digest)
        finally:
            reach("gc.after_bytes")
            with catalog.write() as tx:
                leaving.gone(tx, done, began)
                unneeded.forget_weights(tx, done)
                leaving.stay(tx, going[len(done) :], began)
        deleted.update(done)
        progress("deleting", len(deleted), max(len(deleted), len(decided.delete)))


def _owners(catalog: Catalog) -> Iterator[str]:
    after = ""
    while True:
        with catalog.read() as tx:
            some = unneeded.owners(tx, after, _AT_ONCE)
        if not some:
            return
        yield from some
        after = some[-1]


def _unowned(catalog: Catalog) -> Iterator[unneeded.Unowned]:
    after = ""
    while True:
        with catalog.read() as tx:
            some = unneeded.unowned(tx, after, _AT_ONCE)
        if not some:
            return
        yield from some
        after = some[-1].digest.hex


def _orphans(catalog: Catalog, blobs: BlobStore, held: set[Digest], progress: Progress) -> Iterator[Orphan]:
    seen = 0
    for some in _batches(blobs.digests()):
        with catalog.read() as tx:
            found = leaving.nobodys(tx, some) - held
            since = leaving.since(tx, found)
        for digest in sorted(found):
            try:
                yield Orphan(digest, blobs.size(digest), since.get(digest))
            except NotFound:
                continue
        seen += len(some)
        progress("looking at files", seen, seen + 1)


def _batches(items: Sequence[Item] | Iterator[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def _ticks() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
