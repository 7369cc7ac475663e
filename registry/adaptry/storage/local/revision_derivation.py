"""Derives the data that a local registry stores with a revision from the revision's files, and checks it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from adaptry.adapters.inspection.files import inspect_tiny
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, InvalidManifest, NotFound, PermissionDenied
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog import bases, files, inspections
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.inspections import EncodedInspection
from adaptry.storage.catalog.prepared import PreparedReads
from adaptry.storage.catalog.versions import Admission, EncodedSpec
from adaptry.storage.local.admission import (
    ResolvedBase,
    check_against_base,
    find_base,
    find_unregistered,
    open_checked,
    open_stored,
    stored_weights_digest,
)
from adaptry.storage.local.blob_content import BlobContent
from adaptry.storage.local.context import RegistryContext, require_all_undamaged
from adaptry.storage.local.inspections import inspect_weights, weights_files
from adaptry.storage.local.licence_tags import licences_in
from adaptry.storage.local.push_steps import InspectFiles, Steps

if TYPE_CHECKING:
    from adaptry.adapters.adapter import Adapter
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.adapters.content import Content, MemoryContent
    from adaptry.registry.records import PushOptions


@dataclass(frozen=True, slots=True)
class _OpenedAdapter:
    """A pushed adapter, with its base and the digest of its weights as far as the catalog knows them."""

    adapter: Adapter
    base: ResolvedBase
    record: BaseRecord | None
    weights_digest: Digest | None


@dataclass(frozen=True)
class RevisionDerivation:
    """Derives the data of revisions for a local registry."""

    context: RegistryContext

    def derive(
        self, name: AdapterName, declared: Manifest, options: PushOptions
    ) -> tuple[Admission, ResolvedBase]:
        """The data to store, and the base for which they were derived. Raises the errors of `admit`."""
        with self.context.catalog.read_prepared() as tx:
            require_files(tx, name, declared)
            require_all_undamaged(tx, {entry.path: entry.sha256 for entry in declared.files})
        if self.context.derive_wide and _is_wide(BlobContent(self.context.blobs, declared)):
            return self.context.derive_wide(self.context.identity, name, declared, options, None)
        adapter = open_stored(self.context.blobs, declared)
        with self.context.catalog.read_prepared() as reads:
            opened = self._opened(reads, declared, adapter)
        headers = {adapter.format.weights: adapter.header}
        found = inspect_weights(self.context, name, declared, headers=headers)
        return self._admission(name, declared, options, opened, found), opened.base

    def derive_sent(
        self, name: AdapterName, declared: Manifest, options: PushOptions, content: MemoryContent
    ) -> Steps[tuple[Admission, ResolvedBase]]:
        """Like `derive`, for files that were sent with the push and are not stored yet."""
        if self.context.derive_wide and _is_wide(content):
            return self.context.derive_wide(self.context.identity, name, declared, options, content)
        adapter = open_checked(content)
        with self.context.catalog.read_prepared() as reads:
            opened = self._opened(reads, declared, adapter)
            known = inspections.find(reads, set(declared.weights.values()))
        headers = {adapter.format.weights: adapter.header}
        lacking = weights_files(content, declared, headers, known)
        measured = {digest: inspect_tiny(file) for digest, file in lacking.items()}
        made = {digest: one for digest, one in measured.items() if one is not None}
        if larger := {digest: file for digest, file in lacking.items() if digest not in made}:
            made |= cast("Mapping[Digest, WeightsInspection]", (yield InspectFiles(larger)))
        found = {path: known.get(digest) or made[digest] for path, digest in declared.weights.items()}
        return self._admission(name, declared, options, opened, found, made), opened.base

    def _opened(self, reads: Reads, declared: Manifest, adapter: Adapter) -> _OpenedAdapter:
        base, record = self._base(reads, declared, adapter.spec.base_name)
        digest = stored_weights_digest(reads, declared, adapter)
        if record is None and self.context.require_known_base:
            raise CheckFailed(
                "this registry accepts only adapters of registered bases, and"
                f" {base.claimed_name or base.claimed_id or 'none'} is not; register it first (`adaptry"
                " base add DIR --name …`)"
            )
        return _OpenedAdapter(adapter, base, record, digest)

    def _admission(
        self,
        name: AdapterName,
        declared: Manifest,
        options: PushOptions,
        opened: _OpenedAdapter,
        found: Mapping[str, WeightsInspection],
        new: Mapping[Digest, WeightsInspection] = MappingProxyType({}),
    ) -> Admission:
        """The data to store. `found` are the inspections by path; those in `new`, by digest, are not stored
        yet. Raises `CheckFailed`, `PermissionDenied`.
        """
        adapter = opened.adapter
        base_check = check_against_base(adapter, opened.base, opened.record, found)
        forced = options.force_reason if base_check.report.is_blocked else None
        if base_check.report.is_blocked and forced is None:
            raise CheckFailed(base_check.report.sentence())
        if forced is not None and not self.context.may("policy.manage", name):
            raise PermissionDenied(
                f"{self.context.identity.name} may not force a push of {name} past blocking findings: "
                f"{base_check.report.sentence()}; an owner of {name.namespace!r} may"
            )
        return Admission(
            declared,
            EncodedSpec.of(adapter.spec),
            opened.weights_digest or adapter.weights_digest(),
            base_check,
            forced,
            options.number,
            {digest: EncodedInspection.of(inspection) for digest, inspection in new.items()},
            licences_in(adapter.content),
        )

    def _base(
        self, reads: Reads, declared: Manifest, written: str | None
    ) -> tuple[ResolvedBase, BaseRecord | None]:
        if isinstance(reads, PreparedReads):
            if unregistered := find_unregistered(reads, declared, written):
                return unregistered, None
            with self.context.catalog.read() as tx:
                return self._base(tx, declared, written)
        base = find_base(reads, self.context.read_scope(reads), declared, written)
        return base, bases.record(reads, base.id) if base.id else None


def _is_wide(content: Content) -> bool:
    from adaptry.storage.local.wide_adapters import is_wide  # only servers need it

    return is_wide(content)


def require_files(tx: Reads, name: AdapterName, manifest: Manifest) -> None:
    """Raises `NotFound` with the names of missing files, `InvalidManifest` for a file of another size."""
    require_all(files.sizes(tx, name, [entry.sha256 for entry in manifest.files]), name, manifest)


def require_all(have: Mapping[Digest, int], name: AdapterName, manifest: Manifest) -> None:
    """Like `require_files`; `have` are the sizes of the existing files."""
    missing = [entry.path for entry in manifest.files if entry.sha256 not in have]
    if missing:
        raise NotFound(f"{name} has no bytes yet for {', '.join(missing)}; upload them, then push again")
    for entry in manifest.files:
        if have[entry.sha256] != entry.size:
            raise InvalidManifest(
                f"the manifest lists {entry.path} with {entry.size:,} bytes, but the file with its digest"
                f" has {have[entry.sha256]:,}"
            )
