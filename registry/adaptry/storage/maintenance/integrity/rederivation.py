"""Derives a version's data again from its files: compares it, and replaces damaged data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from adaptry.adapters.adapter import Adapter
from adaptry.checks.weights import WEIGHTS_CODES
from adaptry.core.digest import Digest
from adaptry.core.report import CheckReport
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import bases, rebuild
from adaptry.storage.catalog.audit import IntegrityProblem
from adaptry.storage.catalog.audit.problem import UNREADABLE, guard_problems
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rebuild import VersionSource
from adaptry.storage.catalog.versions import Admission, BaseCheck, EncodedSpec
from adaptry.storage.local.admission import (
    check_against_base,
    find_stored_base,
    known_inspections,
    open_stored,
)

_BATCH = 100


def problems(
    catalog: Catalog,
    blobs: BlobStore,
    damaged: frozenset[Digest],
    misread: frozenset[Digest],
    older: frozenset[Digest],
) -> Iterator[IntegrityProblem]:
    """Versions whose spec does not follow from their files, or whose report differs from today's checks;
    versions with damaged files are skipped. `misread`, `older`: files whose stored inspections are wrong, or
    were made by an older Adaptry.
    """
    after = 0
    while True:
        with catalog.read() as tx:
            keys = rebuild.keys_of_versions(tx, after, _BATCH)
        if not keys:
            return
        for key in keys:
            yield from guard_problems(
                f"version {key}", partial(_of_version, catalog, blobs, damaged, misread, older, key)
            )
        after = keys[-1]


def _of_version(
    catalog: Catalog,
    blobs: BlobStore,
    damaged: frozenset[Digest],
    misread: frozenset[Digest],
    older: frozenset[Digest],
    key: int,
) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        try:
            kept, spec = rebuild.read_version_source(tx, key), rebuild.spec_of(tx, key)
            report = rebuild.report_of(tx, key)
        except UNREADABLE:
            return  # found by the audit
    if kept is None or spec is None or not damaged.isdisjoint(one.sha256 for one in kept.manifest.files):
        return
    adapter = open_stored(blobs, kept.manifest)
    if adapter.spec != spec:
        reason = "its spec differs from the one that this version of Adaptry derives from its files"
        yield IntegrityProblem(kept.name, reason, "derived", f"version:{key}")
    elif not older.isdisjoint(kept.manifest.weights.values()):
        reason = "its weights were inspected by an older Adaptry, which did not look for tensors of ones"
        yield IntegrityProblem(kept.name, reason, "outdated", f"version:{key}")
    elif report is not None:
        yield from _other_findings(catalog, kept, report, _check(catalog, kept, adapter), misread)


def _other_findings(
    catalog: Catalog, kept: VersionSource, report: CheckReport, now: BaseCheck, misread: frozenset[Digest]
) -> Iterator[IntegrityProblem]:
    """Leaves out the findings about weights if these are not inspected now, or were misread."""
    weights = kept.manifest.weights
    with catalog.read() as tx:
        is_inspected = known_inspections(tx, kept.manifest).keys() == weights.keys()
    is_known = is_inspected and misread.isdisjoint(weights.values())
    unknown = frozenset() if is_known else WEIGHTS_CODES
    before, after = (
        [found for found in each.findings if found.code not in unknown] for each in (report, now.report)
    )
    if before != after:
        had, has = ({found.code for found in each} for each in (before, after))
        changes = [f"gains {code}" for code in sorted(has - had)] + [
            f"loses {code}" for code in sorted(had - has)
        ]
        reason = (
            f"its report is not what this Adaptry finds: it {' and '.join(changes) or 'words them otherwise'}"
        )
        yield IntegrityProblem(kept.name, reason, "outdated", f"version:{kept.key}")


def rederive(catalog: Catalog, blobs: BlobStore, kept: VersionSource) -> Admission:
    """The data with which a version would be admitted now. Raises the errors of admission, except for
    findings of the checks.
    """
    adapter = open_stored(blobs, kept.manifest)
    base_check = _check(catalog, kept, adapter)
    return Admission(
        kept.manifest, EncodedSpec.of(adapter.spec), adapter.weights_digest(), base_check, kept.forced
    )


def _check(catalog: Catalog, kept: VersionSource, adapter: Adapter) -> BaseCheck:
    with catalog.read() as tx:
        base = find_stored_base(tx, kept.manifest, adapter.spec.base_name, kept.bound_base)
        record = bases.record(tx, base.id) if base.id else None
        inspections = known_inspections(tx, kept.manifest)
    return check_against_base(adapter, base, record, inspections)
