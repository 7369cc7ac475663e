"""A bundle put down in a registry: verified from end to end first, then delivered version by version.

So a bundle that is not whole leaves nothing, and one whose loading was broken off is loaded again and goes on where it stopped.
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
from adaptry.core.manifest import Manifest, check_path
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.mirroring.actions import MirrorFailure, MirrorLog, MirrorResult
from adaptry.operations.mirroring.apply import apply_base, apply_snapshot, point_aliases
from adaptry.operations.mirroring.bundles.archive import Bundle, open_bundle
from adaptry.operations.mirroring.bundles.index import MAX_BASE_RECORD, BundledBase, BundleIndex
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
    """Delivers everything that is in the bundle; aliases are claims, pointed only where asked.

    Raises `InvalidBundle` before anything is sent, `ProtocolMismatch`, `NotFound`, `Unavailable`; what is refused is among the failures.
    """
    with open_bundle(path) as bundle:
        manifests, records = verify_bundle(bundle, progress)
        return _deliver(registry, bundle, manifests, records, aliases, progress, retry)


def inspect_bundle(path: Path, progress: Progress = no_progress) -> BundleIndex:
    """What is in a bundle, verified from end to end; no registry is asked. Raises as `load`."""
    with open_bundle(path) as bundle:
        verify_bundle(bundle, progress)
        return bundle.index


def verify_bundle(
    bundle: Bundle, progress: Progress
) -> tuple[Mapping[Digest, Manifest], Mapping[Digest, BaseRecord]]:
    """The manifests and the bases' records, once all bytes were seen to be right and to belong together."""
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
        raise InvalidBundle(f"the bundle is sound and what is in it is not: {error.message}") from error
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
        raise InvalidBundle(f"the record of base {base.id.brief} is that of {record.id.brief}")
    return record


def _deliver(
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
        except PermissionDenied as error:  # done without: its adapters are then declared, not verified
            log.failures.append(MirrorFailure(what=f"base {base.id.brief}", reason=error.message))
    for snapshot in sorted(bundle.index.parcels, key=lambda one: one.successor is not None):
        with log.record(str(snapshot), log.copied) as step:
            manifest = manifests[snapshot.digest]
            content = bundle.content(manifest.files)
            result = apply_snapshot(registry, snapshot, manifest, content, progress=progress, retry=retry)
            step.is_change = result.is_change
    if aliases:
        for snapshot in bundle.index.parcels:
            for alias in snapshot.aliases:
                with log.record(f"{snapshot.name}@{alias}", log.pointed) as step:
                    step.is_change = bool(
                        point_aliases(registry, snapshot.model_copy(update={"aliases": (alias,)}))
                    )
    return log.result()
