"""Loads a bundle into a registry: verifies the whole file first, then applies it version by version.

A damaged bundle therefore changes nothing, and an interrupted load can be repeated and continues where it
stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting.base_fingerprint import check_identity
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, InvalidBundle, PermissionDenied
from adaptry.core.manifest import Manifest
from adaptry.core.progress import Progress, no_progress
from adaptry.core.tree_paths import check_path
from adaptry.operations.mirror.actions import MirrorFailure, MirrorLog, MirrorResult
from adaptry.operations.mirror.apply import apply_base, apply_snapshot, point_aliases
from adaptry.operations.mirror.bundles.archive import Bundle, open_bundle
from adaptry.operations.mirror.bundles.index import MAX_BASE_RECORD, BundledBase, BundleIndex
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.registry.interface import Registry

_LIMITS = strictjson.JsonLimits(size=MAX_BASE_RECORD, nodes=4_000_000)


def load_bundle(
    registry: Registry,
    path: Path,
    *,
    aliases: bool = False,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> MirrorResult:
    """Applies everything in the bundle. Its aliases are unauthenticated claims, so they are moved only with
    `aliases`.

    Raises `InvalidBundle` before any change, `ProtocolMismatch`, `NotFound`, `Unavailable`; refused actions
    are in `failures`.
    """
    with open_bundle(path) as bundle:
        manifests, records = verify_bundle(bundle, progress)
        return _apply(registry, bundle, manifests, records, aliases, progress, retry)


def inspect_bundle(path: Path, progress: Progress = no_progress) -> BundleIndex:
    """Verifies a whole bundle and returns its index, without a registry. Raises the errors of
    `load_bundle`.
    """
    with open_bundle(path) as bundle:
        verify_bundle(bundle, progress)
        return bundle.index


def verify_bundle(
    bundle: Bundle, progress: Progress
) -> tuple[Mapping[Digest, Manifest], Mapping[Digest, BaseRecord]]:
    """Verifies all bytes and their consistency; returns the manifests and the base records."""
    bundle.verify(progress)
    index = bundle.index
    try:
        manifests = {
            digest: Manifest.parse(bundle.read_document("manifest", digest))
            for digest in {snapshot.digest for snapshot in index.parcels}
        }
        records = {base.id: _record(bundle, base) for base in index.bases}
        for base in index.bases:
            for entry in base.files:
                check_path(entry.path)
    except AdaptryError as error:
        raise InvalidBundle(f"the bundle is intact, but its contents are invalid: {error.message}") from error
    index.check_files(manifest.files for manifest in manifests.values())
    return manifests, records


def _record(bundle: Bundle, base: BundledBase) -> BaseRecord:
    try:
        record = BaseRecord.model_validate(
            strictjson.loads(bundle.read_document("base", base.record), _LIMITS, "a base's record")
        )
    except ValidationError as error:
        raise InvalidBundle(f"not a base's record: {error.errors()[0]['msg']}") from None
    check_identity(record)
    if record.id != base.id:
        raise InvalidBundle(f"the record of base {base.id.brief} belongs to {record.id.brief}")
    return record


def _apply(
    registry: Registry,
    bundle: Bundle,
    manifests: Mapping[Digest, Manifest],
    records: Mapping[Digest, BaseRecord],
    aliases: bool,
    progress: Progress,
    retry: RetryPolicy,
) -> MirrorResult:
    log = MirrorLog()
    for base in bundle.index.bases:
        try:
            if apply_base(registry, records[base.id], base.names, base.files, bundle.content(base.files)):
                log.bases.append(base.id)
        except PermissionDenied as error:  # its adapters' base stays declared, not verified
            log.failures.append(MirrorFailure(what=f"base {base.id.brief}", reason=error.message))
    for snapshot in sorted(bundle.index.parcels, key=lambda one: one.successor is not None):
        with log.record(str(snapshot), log.copied) as action:
            manifest = manifests[snapshot.digest]
            content = bundle.content(manifest.files)
            result = apply_snapshot(registry, snapshot, manifest, content, progress=progress, retry=retry)
            action.is_change = result.is_change
    if aliases:
        for snapshot in bundle.index.parcels:
            for alias in snapshot.aliases:
                with log.record(f"{snapshot.name}@{alias}", log.pointed) as action:
                    action.is_change = bool(
                        point_aliases(registry.aliases, snapshot.model_copy(update={"aliases": (alias,)}))
                    )
    return log.result()
