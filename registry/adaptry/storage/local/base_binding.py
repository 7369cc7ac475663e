"""Binds versions of a local registry to bases: a person declares the base that a version was trained on.

This is for versions whose files do not identify their base by content, such as those trained from a folder
that no longer exists. The declared base is checked like a base that a push claims.
"""

from __future__ import annotations

from adaptry.adapters.content import Content
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry import records
from adaptry.storage.catalog import bases, events, versions
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.versions import BaseCheck, VersionRecord, to_record
from adaptry.storage.local.admission import (
    ResolvedBase,
    check_against_base,
    find_bound_base,
    known_inspections,
    open_checked,
    open_stored,
)
from adaptry.storage.local.context import RegistryContext, require_all_undamaged
from adaptry.storage.local.hidden_bases import hide_bases_in_details


@dataclass(frozen=True, slots=True)
class Binding:
    """The base that a version will be bound to, as the registry found it, and the check against it."""

    id: Digest
    base: ResolvedBase
    base_check: BaseCheck

    def is_current(self, context: RegistryContext, tx: Transaction, stored: VersionRecord) -> bool:
        """Whether the version still has no base, and the registry still finds the base that was checked."""
        detail = versions.detail(tx, stored)
        return detail.version.base_id is None and _find_base(context, tx, self.id, detail) == self.base

    def store(
        self, context: RegistryContext, tx: Transaction, adapter: AdapterRecord, stored: VersionRecord
    ) -> None:
        """Binds the version, with an event."""
        versions.bind_base(tx, stored.key, self.id, self.base_check)
        events.record(
            tx,
            "version.bound",
            at=context.clock(),
            by=context.identity.name,
            adapter=adapter,
            number=stored.number,
            detail={"base": self.id, "base_status": self.base_check.status},
        )


def bind_base(
    context: RegistryContext, name: AdapterName, revision: Digest, base: Digest
) -> records.VersionDetail:
    """Implements `Versions.bind_base`."""
    ref = Ref.of_revision(name, revision)
    with context.catalog.read() as tx:
        stored, _ = _bindable(context, tx, ref, base)
    binding = derive_binding(context, stored, base)
    with context.write() as tx:
        stored, before = _bindable(context, tx, ref, base)
        if not _is_bound(before, base):
            binding.store(context, tx, context.writable_adapter(tx, name, "push"), stored)
        detail = versions.detail(tx, stored)
        return hide_bases_in_details(tx, context.read_scope(tx), [detail])[0]


def derive_binding(
    context: RegistryContext, stored: VersionRecord, base: Digest, sent: Content | None = None
) -> Binding:
    """Checks a version against a base. A version whose base is not registered yet waits for it. The files are
    those that were `sent` again, or the stored ones. Raises `CheckFailed` if it does not fit, `CorruptData`.
    """
    with context.catalog.read() as tx:
        detail = versions.detail(tx, stored)
        if sent is None:
            require_all_undamaged(tx, {entry.path: entry.sha256 for entry in detail.manifest.files})
        found = _find_base(context, tx, base, detail)
        record = bases.record(tx, found.id) if found.id else None
        inspections = known_inspections(tx, detail.manifest)
    adapter = open_stored(context.blobs, detail.manifest) if sent is None else open_checked(sent)
    base_check = check_against_base(adapter, found, record, inspections)
    if base_check.report.is_blocked:
        raise CheckFailed(
            f"{detail.version.label} does not fit {found.name or base.brief}: {base_check.report.sentence()}"
        )
    return Binding(base, found, base_check)


def _is_bound(detail: records.VersionDetail, base: Digest) -> bool:
    """Whether a binding would change nothing: the version is already verified on the base, under the name in
    its config too.
    """
    is_verified = (detail.version.base_id, detail.version.base_status) == (base, "verified")
    return is_verified and not any(one.code == "base_name_differs" for one in detail.report.findings)


def _find_base(
    context: RegistryContext, tx: Transaction, base: Digest, detail: records.VersionDetail
) -> ResolvedBase:
    if not _is_registered(context, tx, base):
        return ResolvedBase(base, None)
    return find_bound_base(tx, base, detail.manifest, detail.spec.base_name)


def _is_registered(context: RegistryContext, tx: Transaction, base: Digest) -> bool:
    """Whether the base is registered here and visible to the caller."""
    return bool(bases.visible_among(tx, context.read_scope(tx), [base]))


def _bindable(
    context: RegistryContext, tx: Transaction, ref: Ref, base: Digest
) -> tuple[VersionRecord, records.VersionDetail]:
    """The version, if the caller may bind it to `base`. Raises the errors of `bind_base`."""
    context.writable_adapter(tx, ref.name, "push")
    stored = to_record(context.resolve(tx, ref))
    detail = versions.detail(tx, stored)
    if not _is_registered(context, tx, base):
        raise NotFound(f"no base {base.brief}; `adaptry base ls` shows those that are registered")
    claimed = detail.manifest.base.id if detail.manifest.base else None
    is_settled = detail.version.base_status == "verified" and versions.bound_base(tx, stored.key) is None
    if claimed not in (None, base) or (is_settled and detail.version.base_id != base):
        raise Conflict(
            f"{detail.version.label} declares another base, which a binding does not change; if it declares"
            " the wrong one, push it again with --base BASE"
        )
    return stored, detail
