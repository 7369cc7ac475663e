"""Inspects weights for a local registry: once for every file, however many revisions have it.

A result is stored at once, by the file's digest, so a repeated push does not inspect the file again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from adaptry.adapters.content import Content
from adaptry.adapters.header import SafetensorsHeader, read_header
from adaptry.adapters.inspection.files import WeightsFile, inspect_file
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.checks.weights import (
    WEIGHTS_CODES,
    FindUnchanged,
    check_copies,
    find_unchanged_parts,
    weights_findings,
)
from adaptry.core.digest import Digest
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.report import CheckReport, Finding
from adaptry.storage.catalog import bases, cursors, inspections, versions
from adaptry.storage.catalog.inspections import EncodedInspection
from adaptry.storage.catalog.versions import VersionRecord
from adaptry.storage.local.admission import open_stored
from adaptry.storage.local.blob_content import BlobContent
from adaptry.storage.local.context import RegistryContext, require_all_undamaged

if TYPE_CHECKING:
    from adaptry.registry.records import Page, TensorInspection, VersionDetail

Headers = Mapping[str, SafetensorsHeader]
"""Headers of weights files, by path."""
_NONE_READ: Headers = {}


def inspect_weights(
    context: RegistryContext,
    name: AdapterName,
    tree: Manifest,
    paths: Iterable[str] | None = None,
    headers: Headers = _NONE_READ,
) -> Mapping[str, WeightsInspection]:
    """The results for the weights files of `tree` (or those at `paths`), by path; files that were not
    inspected before are inspected now. `headers` are the headers that were already read.

    Raises `Unavailable` if a file cannot be inspected, `InvalidWeights`, `NotFound`, `CorruptData`.
    """
    requested = tree.weights if paths is None else {path: tree.weights[path] for path in paths}
    with context.catalog.read_prepared() as tx:
        known = inspections.find(tx, set(requested.values()))
        lacking = {path: digest for path, digest in requested.items() if digest not in known}
        if lacking:
            require_all_undamaged(tx, lacking)
    found = _inspect(context, name, BlobContent(context.blobs, tree), lacking, headers)
    if found:
        with context.write(is_durable=False) as tx:
            for digest, inspection in found.items():
                inspections.store(tx, digest, EncodedInspection.of(inspection))
    return {path: known.get(digest) or found[digest] for path, digest in requested.items()}


def weights_files(
    content: Content,
    tree: Manifest,
    headers: Headers,
    known: Mapping[Digest, WeightsInspection],
) -> dict[Digest, WeightsFile]:
    """The weights files of `tree` whose results are not `known`. Raises `InvalidWeights`."""
    return {
        digest: WeightsFile(
            content,
            path,
            headers.get(path) or read_header(content.reader(path), content.sizes[path], path),
        )
        for path, digest in tree.weights.items()
        if digest not in known
    }


def _inspect(
    context: RegistryContext,
    name: AdapterName,
    content: Content,
    lacking: Mapping[str, Digest],
    headers: Headers,
) -> dict[Digest, WeightsInspection]:
    found: dict[Digest, WeightsInspection] = {}
    for path, digest in lacking.items():
        if digest not in found:
            found[digest] = inspect_file(context.inspector, content, path, name.namespace, headers.get(path))
    return found


def inspect_tensors(
    context: RegistryContext, ref: Ref, cursor: str | None = None, limit: int = 50
) -> Page[TensorInspection]:
    """Implements `Versions.inspect_tensors`."""
    from adaptry.registry.records import Page, TensorInspection  # not needed by a push
    from adaptry.registry.tensor_listing import list_tensors

    cursors.check_limit(limit)
    with context.catalog.read() as tx:
        stored = versions.to_record(context.resolve(tx, ref))
        tree = versions.manifest(tx, stored.digest)
    about = f"tensors {stored.key}"
    start = cursors.decode_number(cursor, about) or 0
    found = inspect_weights(context, ref.name, tree)
    if start == 0:  # once for all pages: a spec may be long
        _update_report(context, stored, found)
    tensors = tuple(list_tensors(found, start, limit + 1))
    following = cursors.encode(start + limit, about) if len(tensors) > limit else None
    return Page[TensorInspection](items=tensors[:limit], next=following)


def _update_report(
    context: RegistryContext, stored: VersionRecord, found: Mapping[str, WeightsInspection]
) -> None:
    with context.catalog.read() as tx:
        detail = versions.detail(tx, stored)
        base = bases.record(tx, detail.version.base_id) if detail.version.base_id else None
    opened = cache(lambda: open_stored(context.blobs, detail.manifest))
    find_unchanged = cache(lambda: find_unchanged_parts(opened(), base))
    copies = tuple(check_copies(opened(), base)) if base and detail.spec.extras else ()
    if _with_weights(detail, found, find_unchanged, copies) != detail.report:
        with context.write(is_durable=False) as tx:  # the base may have been registered in the meantime
            report = _with_weights(versions.detail(tx, stored), found, find_unchanged, copies)
            versions.set_report(tx, stored.key, report)


def _with_weights(
    detail: VersionDetail,
    found: Mapping[str, WeightsInspection],
    find_unchanged: FindUnchanged,
    copies: tuple[Finding, ...],
) -> CheckReport:
    """The version's report with the findings about its weights."""
    others = [finding for finding in detail.report.findings if finding.code not in WEIGHTS_CODES]
    weights = weights_findings(detail.spec, found, find_unchanged)
    return detail.report.model_copy(update={"findings": (*others, *weights, *copies)})
