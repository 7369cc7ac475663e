"""Finds garbage: reads every owner of files, every ownerless manifest, and every blob; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.failpoints import reach
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import garbage as unneeded
from adaptry.storage.catalog import pending_deletes
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.garbage import OwnedFile
from adaptry.storage.maintenance.gc.batches import BATCH, batches


@dataclass(frozen=True, slots=True)
class OrphanBlob:
    """Stored bytes without an owner, and the time of their mark."""

    digest: Digest
    size: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class GarbageScan:
    """The result of a scan. `needed` are marked files that are needed after all; `revisions` are manifests
    that no adapter has, and `held` the files of those from which a version was made.
    """

    unneeded: tuple[OwnedFile, ...] = ()
    needed: tuple[OwnedFile, ...] = ()
    orphans: tuple[OrphanBlob, ...] = ()
    revisions: tuple[Digest, ...] = ()
    held: frozenset[Digest] = frozenset()


def scan_garbage(catalog: Catalog, blobs: BlobStore, progress: Progress = no_progress) -> GarbageScan:
    """Scans every owner, every manifest without one, and every blob; changes nothing."""
    revisions: list[Digest] = []
    held: set[Digest] = set()
    for revision in _unowned(catalog):
        if revision.is_parent:
            held |= revision.files
        else:
            revisions.append(revision.digest)
    # List blobs before their owners: later blobs are not seen, and listed ones may have an owner by then.
    orphans = tuple(_orphans(catalog, blobs, held, progress))
    spare: list[OwnedFile] = []
    needed: list[OwnedFile] = []
    for owner in _owners(catalog):
        with catalog.read() as tx:
            found, marked = unneeded.of_owner(tx, owner)
        spare += found
        needed += marked
    reach("gc.after_scan")
    return GarbageScan(tuple(spare), tuple(needed), orphans, tuple(revisions), frozenset(held))


def _owners(catalog: Catalog) -> Iterator[str]:
    after = ""
    while True:
        with catalog.read() as tx:
            some = unneeded.owners(tx, after, BATCH)
        if not some:
            return
        yield from some
        after = some[-1]


def _unowned(catalog: Catalog) -> Iterator[unneeded.UnownedRevision]:
    after = ""
    while True:
        with catalog.read() as tx:
            some = unneeded.unowned_revisions(tx, after, BATCH)
        if not some:
            return
        yield from some
        after = some[-1].digest.hex


def _orphans(
    catalog: Catalog, blobs: BlobStore, held: set[Digest], progress: Progress
) -> Iterator[OrphanBlob]:
    seen = 0
    for some in batches(blobs.digests()):
        with catalog.read() as tx:
            found = pending_deletes.unowned(tx, some) - held
            since = pending_deletes.marked_since(tx, found)
        for digest in sorted(found):
            try:
                yield OrphanBlob(digest, blobs.size(digest), since.get(digest))
            except NotFound:
                continue
        seen += len(some)
        progress("scanning files", seen, seen + 1)
