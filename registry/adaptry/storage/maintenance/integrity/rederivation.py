"""What is derived of a version's files, derived again: compared, and put in place of what was damaged."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from adaptry.checks.weights import weights_findings
from adaptry.core.digest import Digest
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import bases, rebuild
from adaptry.storage.catalog.access import EVERYTHING
from adaptry.storage.catalog.audit import IntegrityProblem
from adaptry.storage.catalog.audit.problem import UNREADABLE, guard_problems
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rebuild import VersionSource
from adaptry.storage.catalog.versions import Admission
from adaptry.storage.local.admission import check_against_base, find_base, known_inspections, open_stored

_AT_ONCE = 100


def problems(catalog: Catalog, blobs: BlobStore, damaged: frozenset[Digest]) -> Iterator[IntegrityProblem]:
    """Versions whose spec is not what their files say; those with damaged files are passed over."""
    after = 0
    while True:
        with catalog.read() as tx:
            keys = rebuild.keys_of_versions(tx, after, _AT_ONCE)
        if not keys:
            return
        for key in keys:
            yield from guard_problems(f"version {key}", partial(_of_version, catalog, blobs, damaged, key))
        after = keys[-1]


def _of_version(
    catalog: Catalog, blobs: BlobStore, damaged: frozenset[Digest], key: int
) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        try:
            kept, spec = rebuild.read_version_source(tx, key), rebuild.spec_of(tx, key)
        except UNREADABLE:
            return  # found by the audit
    if kept is None or spec is None or not damaged.isdisjoint(one.sha256 for one in kept.manifest.files):
        return
    if open_stored(blobs, kept.manifest).spec != spec:
        reason = "its spec is not what this Adaptry derives from its files"
        yield IntegrityProblem(kept.name, reason, "derived", f"version:{key}")


def rederive(catalog: Catalog, blobs: BlobStore, kept: VersionSource) -> Admission:
    """What a version would now be admitted with. Raises as admission, but not for what the checks find."""
    adapter = open_stored(blobs, kept.manifest)
    with catalog.read() as tx:
        base = find_base(tx, EVERYTHING, kept.manifest, adapter.spec.base_name)
        record = bases.record(tx, base.id) if base.id else None
        weights = weights_findings(adapter.spec, known_inspections(tx, kept.manifest))
    base_check = check_against_base(adapter, base, record, weights)
    return Admission(kept.manifest, adapter.spec, adapter.weights_digest(), base_check, kept.forced)
