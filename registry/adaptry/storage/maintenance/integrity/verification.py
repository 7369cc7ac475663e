"""`verify`: every row against the others, every file against the rows that name it.

What is found to be damaged is marked in the catalog, so that no reader is given it, a push sends it again, and listings show
it; a mark goes when the file is found sound. Nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound, Unavailable
from adaptry.core.progress import Progress, no_progress
from adaptry.storage.blobs import BlobStore
from adaptry.storage.blobs.tiered import TieredBlobs
from adaptry.storage.catalog import damage, files, scan
from adaptry.storage.catalog.audit import Problem, audit
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.maintenance.integrity import base_ids, job_tasks, rederivation, reinspection

CHANGED = "its bytes have changed since they were stored"
GONE = "its bytes are gone"
_REMEDY = "push it again or restore it from a copy with `adaptry mend --from`"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found of one file: what is wrong, if anything, and which copy of it was looked at."""

    digest: Digest
    reason: str | None
    copy: str | None


def verify(
    catalog: Catalog,
    blobs: BlobStore,
    *,
    read_bytes: bool = True,
    note: bool = True,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    progress: Progress = no_progress,
) -> tuple[Problem, ...]:
    """Every problem found. Without `read_bytes`, files are only looked for and measured (in bytes), not hashed.

    With `note`, damaged files are marked as such. Raises `Unavailable`.
    """
    problems = [*audit(catalog), *base_ids.problems(catalog), *job_tasks.problems(catalog)]
    expected = scan.referenced_files(catalog)
    known = _marked(catalog)
    seen = tuple(_look(blobs.original, expected, read_bytes, progress))
    found = {one.digest: one for one in seen if one.reason}
    for digest, reason in known.items():
        if digest in expected and digest not in found and not read_bytes:
            found[digest] = _Seen(digest, reason, None)
    for digest in sorted(found):
        owners = ", ".join(scan.owners_of(catalog, digest))
        if owners:  # else a sweep took it while we looked
            reason = f"{found[digest].reason}; {_REMEDY}"
            problems.append(Problem(f"{digest.brief} of {owners}", reason, "file", digest.hex))
    if read_bytes:
        problems += _wrong_copies(blobs, expected)
        problems += rederivation.problems(catalog, blobs, frozenset(found))
        problems += reinspection.problems(catalog, blobs, frozenset(found))
    if note:
        manifests = {Digest(one.key) for one in problems if one.kind == "manifest"}
        with suppress(Unavailable):  # a registry that may only be read is looked at all the same
            _note(catalog, blobs.original, seen if read_bytes else tuple(found.values()), manifests, clock())
    return tuple(dict.fromkeys(problems))


def _marked(catalog: Catalog) -> Mapping[Digest, str]:
    with catalog.read() as tx:
        return damage.marked(tx)


def _look(
    blobs: BlobStore,
    expected: Mapping[Digest, int],
    read_bytes: bool,
    progress: Progress,
) -> Iterator[_Seen]:
    total = sum(expected.values())
    done = 0
    for digest, size in sorted(expected.items()):
        yield _looked_at(blobs, digest, size, read_bytes)
        done += size
        progress("verifying", done, total)


def _looked_at(blobs: BlobStore, digest: Digest, size: int, read_bytes: bool) -> _Seen:
    copy = blobs.copy_id(digest)
    try:
        found = blobs.size(digest)
        if found != size:
            return _Seen(digest, f"its bytes are {found:,}, not the {size:,} that were stored", copy)
        if not read_bytes:
            return _Seen(digest, None, copy)
        is_sound = blobs.is_sound(digest)
    except NotFound:
        return _Seen(digest, GONE, None)
    return _Seen(digest, None if is_sound else CHANGED, copy)


def _wrong_copies(blobs: BlobStore, expected: Mapping[Digest, int]) -> Iterator[Problem]:
    """Copies in a cache on this machine, which readers are given before the store is asked."""
    if isinstance(blobs, TieredBlobs):
        for digest in sorted(expected):
            if blobs.has_damaged_copy(digest):
                reason = "its copy in the cache of this machine has changed"
                yield Problem(digest.brief, reason, "derived", f"copy:{digest.hex}")


def _note(
    catalog: Catalog, blobs: BlobStore, seen: tuple[_Seen, ...], manifests: set[Digest], at: datetime
) -> None:
    """Marks what is damaged, and takes the mark from what is not (any more)."""
    known = _marked(catalog)
    damaged = {one.digest for one in seen if one.reason} | manifests
    revisions = scan.revisions_with(catalog, damaged)
    for one in seen:
        if not one.reason and one.digest not in known:
            continue
        with catalog.write() as tx:
            # What was stored anew meanwhile is not what was looked at: its own upload decides about the mark.
            is_same = one.reason is not None and one.copy is None and not blobs.has(one.digest)
            if not is_same and blobs.copy_id(one.digest) != one.copy:
                continue
            if one.reason and files.is_owned(tx, one.digest):
                damage.mark(tx, one.digest, one.reason, revisions[one.digest], at)
            else:
                damage.clear(tx, one.digest)
    for digest in manifests:
        with catalog.write() as tx:
            damage.mark(tx, digest, "its manifest has changed since it was stored", [digest], at)
    with catalog.write() as tx:
        for digest in damage.marked(tx).keys() - manifests:
            if not files.is_owned(tx, digest):
                damage.clear(tx, digest)
