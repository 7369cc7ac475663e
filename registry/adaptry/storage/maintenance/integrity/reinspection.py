"""Repeats every stored inspection of weights files, and compares the results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

from adaptry.adapters.inspection.files import inspect_file
from adaptry.adapters.inspection.inspector import Inspector
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import inspections, scan
from adaptry.storage.catalog.audit import IntegrityProblem
from adaptry.storage.catalog.audit.inspections import is_close
from adaptry.storage.catalog.audit.problem import UNREADABLE, ProblemKind
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.manifests import stored_manifest
from adaptry.storage.local.blob_content import BlobContent

_KEY = "inspection:"


def problems(catalog: Catalog, blobs: BlobStore, damaged: frozenset[Digest]) -> Iterator[IntegrityProblem]:
    """Inspections whose result differs from that of their file now; those of damaged files are skipped.

    Reads each inspected file again. Files that cannot be inspected now are not compared.
    """
    with catalog.read() as tx:
        waiting = set(inspections.files_inspected(tx) - damaged)
    with closing(Inspector()) as inspector:
        for revision, data in scan.manifests(catalog):
            if not waiting:
                return
            try:
                manifest = stored_manifest(revision, data)
            except AdaptryError:
                continue  # found by the audit
            for path, digest in manifest.weights.items():
                if digest in waiting:
                    waiting.remove(digest)
                    yield from _compare(catalog, inspector, BlobContent(blobs, manifest), path, digest)


def files_of(problems: Iterable[IntegrityProblem], kind: ProblemKind) -> frozenset[Digest]:
    """The files whose stored inspections are wrong (`derived`) or were made by older rules (`outdated`)."""
    return frozenset(
        Digest(one.key.removeprefix(_KEY))
        for one in problems
        if one.kind == kind and one.key.startswith(_KEY)
    )


def _compare(
    catalog: Catalog, inspector: Inspector, content: BlobContent, path: str, digest: Digest
) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        try:
            known = inspections.find(tx, [digest]).get(digest)
        except UNREADABLE:
            return  # found by the audit
    if known is None:
        return
    where, key = f"inspection of {digest.brief}", f"{_KEY}{digest.hex}"
    try:
        found = inspect_file(inspector, content, path)
    except Unavailable:
        return
    except AdaptryError as error:
        yield IntegrityProblem(where, f"its file can no longer be inspected: {error.message}", "derived", key)
        return
    if not _is_same(known, found):
        yield IntegrityProblem(where, "its values are not those of the tensors in the file", "derived", key)
    elif any(tensor.is_one and not known.tensors[name].is_one for name, tensor in found.tensors.items()):
        reason = "it was made by an older Adaptry, which did not look for tensors of ones"
        yield IntegrityProblem(where, reason, "outdated", key)


def _is_same(known: WeightsInspection, found: WeightsInspection) -> bool:
    if known.tensors.keys() != found.tensors.keys():
        return False
    pairs = ((known.tensors[name], tensor) for name, tensor in found.tensors.items())
    return all(
        (one.nan, one.infinite, one.is_zero) == (other.nan, other.infinite, other.is_zero)
        and is_close(one.norm, other.norm)
        for one, other in pairs
    )
