"""The part of a local registry that binds versions to bases: people declare the base that a version was
trained on.

For versions whose files do not identify it by content, such as those trained from a folder that no longer
exists. The declared base is checked like a base that a push claims.
"""

from __future__ import annotations

from adaptry.checks.weights import weights_findings
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, NotFound
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.records import VersionDetail
from adaptry.storage.catalog import bases, events, versions
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.versions import to_record
from adaptry.storage.local.admission import (
    ResolvedBase,
    check_against_base,
    find_bound_base,
    known_inspections,
    open_stored,
)
from adaptry.storage.local.context import RegistryContext, require_sound
from adaptry.storage.local.hidden_bases import hide_bases_in_details


def bind_base(
    context: RegistryContext,
    name: AdapterName,
    revision: Digest,
    base: Digest,
    *,
    may_be_unregistered: bool = False,
) -> VersionDetail:
    """The same as `Versions.bind_base`. If the base `may_be_unregistered`, the version waits for it."""
    ref = Ref.of_revision(name, revision)
    with context.catalog.read() as tx:
        detail = _bindable(context, tx, ref, base, may_be_unregistered)
        is_registered = _is_registered(context, tx, base)
        require_sound(tx, {entry.path: entry.sha256 for entry in detail.manifest.files})
        record = bases.record(tx, base) if is_registered else None
        found = ResolvedBase(base, None)
        if is_registered:
            found = find_bound_base(tx, base, detail.manifest, detail.spec.base_name)
        weights = weights_findings(detail.spec, known_inspections(tx, detail.manifest))
    base_check = check_against_base(open_stored(context.blobs, detail.manifest), found, record, weights)
    if base_check.report.is_blocked:
        raise CheckFailed(
            f"{detail.version.label} does not fit {found.name or base.brief}: {base_check.report.sentence()}"
        )
    with context.write() as tx:
        before = _bindable(context, tx, ref, base, may_be_unregistered).version
        if (before.base_id, before.base_status) != (base, "verified"):
            stored = to_record(context.resolve(tx, ref))
            versions.bind_base(tx, stored.key, base, base_check)
            events.record(
                tx,
                "version.bound",
                at=context.clock(),
                by=context.identity.name,
                adapter=context.writable_adapter(tx, name, "push"),
                number=stored.number,
                detail={"base": base, "base_status": base_check.status},
            )
        detail = versions.detail(tx, to_record(context.resolve(tx, ref)))
        return hide_bases_in_details(tx, context.read_scope(tx), [detail])[0]


def _is_registered(context: RegistryContext, tx: Transaction, base: Digest) -> bool:
    """Whether the caller can see the base here."""
    return bool(bases.visible_among(tx, context.read_scope(tx), [base]))


def _bindable(
    context: RegistryContext, tx: Transaction, ref: Ref, base: Digest, may_be_unregistered: bool
) -> VersionDetail:
    """The version, if the caller may bind it to `base`. Raises the errors of `bind_base`."""
    context.writable_adapter(tx, ref.name, "push")
    stored = to_record(context.resolve(tx, ref))
    detail = versions.detail(tx, stored)
    if not may_be_unregistered and not _is_registered(context, tx, base):
        raise NotFound(f"no base {base.brief}; `adaptry base ls` shows those that are registered")
    claimed = detail.manifest.base.id if detail.manifest.base else None
    is_settled = detail.version.base_status == "verified" and versions.bound_base(tx, stored.key) is None
    if claimed not in (None, base) or (is_settled and detail.version.base_id != base):
        raise Conflict(
            f"{detail.version.label} declares another base, which a binding does not change; if it declares"
            " the wrong one, push it again with --base BASE"
        )
    return detail
