"""`verify`: compares every row with related rows, and every file with the rows that name it.

Damaged files are marked in the catalog, so that readers do not get them, a push sends them again, and
listings show them; a mark is removed when the file is found intact. Nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.storage.blobs import BlobStore
from adaptry.storage.blobs.tiered import TieredBlobs
from adaptry.storage.catalog import damage, files, scan
from adaptry.storage.catalog.audit import IntegrityProblem, audit
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.maintenance.integrity import base_ids, job_tasks, rederivation, reinspection

CHANGED = "its bytes have changed since they were stored"
LOST = "its bytes are lost"
_REMEDY = "push it again or restore it from a copy with `adaptry repair --from`"


@dataclass(frozen=True, slots=True)
class _FileCheck:
    """The result for one file: its fault, if any, and the copy that was checked."""

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
) -> tuple[IntegrityProblem, ...]:
    """Every problem found. Without `read_bytes`, only the existence and size of files are checked, not their
    hash.

    With `note`, damaged files are marked as such. Raises `Unavailable`.
    """
    problems = [*audit(catalog), *base_ids.problems(catalog), *job_tasks.problems(catalog)]
    expected = scan.referenced_files(catalog)
    known = _known_damage(catalog)
    seen = tuple(_check_files(blobs.original, expected, read_bytes, progress))
    found = {one.digest: one for one in seen if one.reason}
    for digest, reason in known.items():
        if digest in expected and digest not in found and not read_bytes:
            found[digest] = _FileCheck(digest, reason, None)
    for digest in sorted(found):
        owners = ", ".join(scan.owners_of(catalog, digest))
        if owners:  # otherwise a sweep deleted it during the check
            reason = f"{found[digest].reason}; {_REMEDY}"
            problems.append(IntegrityProblem(f"{digest.brief} of {owners}", reason, "file", digest.hex))
    if read_bytes:
        problems += _wrong_copies(blobs, expected)
        damaged = frozenset(found)
        inspected = list(reinspection.problems(catalog, blobs, damaged))
        wrong, older = (reinspection.files_of(inspected, kind) for kind in ("derived", "outdated"))
        # A repair drops outdated inspections before it derives versions again.
        problems += [*inspected, *rederivation.problems(catalog, blobs, damaged, wrong, older)]
    if note:
        manifests = {Digest(one.key) for one in problems if one.kind == "manifest"}
        with suppress(Unavailable):  # a read-only registry is verified without marks
            _record_damage(
                catalog, blobs.original, seen if read_bytes else tuple(found.values()), manifests, clock()
            )
    return tuple(dict.fromkeys(problems))


def _known_damage(catalog: Catalog) -> Mapping[Digest, str]:
    with catalog.read() as tx:
        return damage.all_damaged(tx)


def _check_files(
    blobs: BlobStore,
    expected: Mapping[Digest, int],
    read_bytes: bool,
    progress: Progress,
) -> Iterator[_FileCheck]:
    total = sum(expected.values())
    done = 0
    for digest, size in sorted(expected.items()):
        yield _check_file(blobs, digest, size, read_bytes)
        done += size
        progress("verifying", done, total)


def _check_file(blobs: BlobStore, digest: Digest, size: int, read_bytes: bool) -> _FileCheck:
    copy = blobs.copy_id(digest)
    try:
        found = blobs.size(digest)
        if found != size:
            return _FileCheck(digest, f"it has {found:,} bytes, not the {size:,} that were stored", copy)
        if not read_bytes:
            return _FileCheck(digest, None, copy)
        is_sound = blobs.is_sound(digest)
    except NotFound:
        return _FileCheck(digest, LOST, None)
    return _FileCheck(digest, None if is_sound else CHANGED, copy)


def _wrong_copies(blobs: BlobStore, expected: Mapping[Digest, int]) -> Iterator[IntegrityProblem]:
    """Checks the copies in this machine's cache, which readers get instead of the store's."""
    if isinstance(blobs, TieredBlobs):
        for digest in sorted(expected):
            if blobs.has_damaged_copy(digest):
                reason = "its copy in the cache of this machine has changed"
                yield IntegrityProblem(digest.brief, reason, "derived", f"copy:{digest.hex}")


def _record_damage(
    catalog: Catalog, blobs: BlobStore, seen: tuple[_FileCheck, ...], manifests: set[Digest], at: datetime
) -> None:
    """Marks damaged files, and removes the mark from intact ones."""
    known = _known_damage(catalog)
    damaged = {one.digest for one in seen if one.reason} | manifests
    revisions = scan.revisions_with(catalog, damaged)
    for one in seen:
        if not one.reason and one.digest not in known:
            continue
        with catalog.write() as tx:
            # A copy stored in the meantime was not checked: its own upload updates the mark.
            is_same = one.reason is not None and one.copy is None and not blobs.has(one.digest)
            if not is_same and blobs.copy_id(one.digest) != one.copy:
                continue
            if one.reason and files.is_owned(tx, one.digest):
                damage.mark_damaged(tx, one.digest, one.reason, revisions[one.digest], at)
            else:
                damage.clear_damage(tx, one.digest)
    for digest in manifests:
        with catalog.write() as tx:
            damage.mark_damaged(tx, digest, "its manifest has changed since it was stored", [digest], at)
    with catalog.write() as tx:
        for digest in damage.all_damaged(tx).keys() - manifests:
            if not files.is_owned(tx, digest):
                damage.clear_damage(tx, digest)
