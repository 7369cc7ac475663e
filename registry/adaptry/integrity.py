"""Is what is stored what was stored? `verify` walks every row and every blob and reports what is wrong.

It changes nothing. Bytes that no row names are no problem (a push that died left them; they can be collected
later); a row whose bytes are missing or changed is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adaptry.blobs import BlobStore
from adaptry.catalog import census
from adaptry.catalog.database import Catalog
from adaptry.digest import Digest
from adaptry.errors import AdaptryError, NotFound
from adaptry.manifest import Manifest
from adaptry.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was stored: where, and what that means."""

    where: str
    reason: str


def verify(
    catalog: Catalog, blobs: BlobStore, *, read_bytes: bool = True, progress: Progress = no_progress
) -> tuple[Problem, ...]:
    """Every problem found. Without `read_bytes`, blobs are only looked for, not hashed."""
    problems = [Problem("catalog", text) for text in census.broken_rows(catalog)]
    problems += _manifests(catalog)
    expected = census.referenced_files(catalog)
    total = sum(expected.values())
    done = 0
    for digest, size in sorted(expected.items()):
        problem = _problem_with(blobs, digest, size, read_bytes)
        if problem:
            owners = ", ".join(census.owners_of(catalog, digest))
            problems.append(Problem(f"{digest.brief} of {owners}", problem))
        done += size
        progress("verifying", done, total)
    return tuple(problems)


def _manifests(catalog: Catalog) -> Iterator[Problem]:
    for digest, data in census.manifests(catalog):
        if Digest.of(data) != digest:
            yield Problem(f"revision {digest.brief}", "its manifest is not the one that was pushed")
            continue
        try:
            manifest = Manifest.parse(data)
        except AdaptryError as error:
            yield Problem(f"revision {digest.brief}", error.message)
            continue
        for owner, missing in census.files_not_owned(catalog, digest, manifest):
            yield Problem(f"{owner}@{digest.brief}", f"no row says that it has {missing}")


def _problem_with(blobs: BlobStore, digest: Digest, size: int, read_bytes: bool) -> str | None:
    try:
        found = blobs.size(digest)
        if found != size:
            return f"its bytes are {found:,}, not the {size:,} that were stored; restore them from a copy"
        if read_bytes and Digest.of_chunks(blobs.chunks(digest)) != digest:
            return "its bytes have changed since they were stored; restore them from a copy"
    except NotFound:
        return "its bytes are gone; push it again or restore them from a copy"
    return None
