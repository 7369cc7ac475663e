"""Admission: derives data from a revision's files, and finds the base to check it against.

Declarations are not trusted if a value can be derived: the spec comes from headers and config, the weights
digest from the bytes, the base from the registered bases. Reads headers and hashes weights; runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter, open_known
from adaptry.adapters.content import Content
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.checks import check
from adaptry.checks.weights import check_copies, find_unchanged_parts, weights_findings
from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import may_be_folder
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import bases, files, inspections
from adaptry.storage.catalog.access import EVERYTHING, ReadScope
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.versions import BaseCheck
from adaptry.storage.local.blob_content import BlobContent, check_first_bytes

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.registry.records import BaseStatus


@dataclass(frozen=True, slots=True)
class ResolvedBase:
    """The base that a manifest and a config claim, and the matching base of this registry, if any.

    `other_names` are its further names, and the one in the config if that is a base of the same weights, or
    may be a folder where the adapter was trained.
    """

    claimed_id: Digest | None
    claimed_name: str | None
    id: Digest | None = None
    name: str | None = None
    other_names: tuple[str, ...] = ()


def open_stored(blobs: BlobStore, manifest: Manifest) -> Adapter:
    """The adapter of a revision whose files are stored. Raises the errors of `open_content`, and
    `Unsupported`.
    """
    return open_checked(BlobContent(blobs, manifest))


def open_checked(content: Content) -> Adapter:
    """The adapter in uploaded files. Raises the errors of `open_content`, and `Unsupported`."""
    check_first_bytes(content)
    return open_known(content)


def stored_weights_digest(tx: Reads, manifest: Manifest, adapter: Adapter) -> Digest | None:
    """The weights digest, if it was derived before: it is the same for every revision with this file."""
    entry = manifest.file(adapter.format.weights)
    assert entry is not None
    return files.find_weights_digest(tx, entry.sha256)


def find_base(tx: Transaction, scope: ReadScope, manifest: Manifest, written: str | None) -> ResolvedBase:
    """The readable base of a revision: by the id that it claims, else by the name that it claims or that is
    in its config (`written`).

    An unknown id stays a claim, and the name in the config is not used for it.
    """
    claimed = _claimed(manifest, written)
    claimed_id, claimed_name = claimed.claimed_id, claimed.claimed_name
    key = str(claimed_id) if claimed_id else claimed_name
    found = bases.find(tx, scope, key) if key else []
    if len(found) != 1:
        return claimed
    names = bases.names(tx, found[0])
    name = claimed_name if claimed_name in names else next(iter(names), None)
    others = tuple(other for other in names if other != name)
    if written and written not in names and _is_no_other_model(tx, scope, found[0], written):
        others = (*others, written)
    return ResolvedBase(claimed_id, claimed_name, found[0], name, others)


def find_unregistered(tx: Reads, manifest: Manifest, written: str | None) -> ResolvedBase | None:
    """Like `find_base`, if no base is registered under the claimed name; None if one may be registered."""
    claimed = _claimed(manifest, written)
    key = str(claimed.claimed_id) if claimed.claimed_id else claimed.claimed_name
    return claimed if key is None or bases.is_unknown(tx, key) else None


def _claimed(manifest: Manifest, written: str | None) -> ResolvedBase:
    claim = manifest.base
    claimed_id = claim.id if claim else None
    return ResolvedBase(claimed_id, claim.name if claim and (claim.name or claim.id) else written)


def find_bound_base(tx: Transaction, id: Digest, manifest: Manifest, written: str | None) -> ResolvedBase:
    """Like `find_base`, for a version that was bound to the base `id`. Its declared name is then
    another name of that base. A base that is not registered yet stays a claim.
    """
    if bases.record(tx, id) is None:
        return ResolvedBase(id, None)
    claimed_name = (manifest.base.name if manifest.base else None) or written
    names = bases.names(tx, id)
    name = claimed_name if claimed_name in names else next(iter(names), None)
    declared = (claimed_name, written)
    others = dict.fromkeys(other for other in (*names, *declared) if other is not None and other != name)
    return ResolvedBase(None, claimed_name, id, name, tuple(others))


def find_stored_base(
    tx: Transaction, manifest: Manifest, written: str | None, bound: Digest | None
) -> ResolvedBase:
    """The base of a stored version, found as for a caller who may read everything. `bound` is the base to
    which it is bound.
    """
    if bound is not None:
        return find_bound_base(tx, bound, manifest, written)
    return find_base(tx, EVERYTHING, manifest, written)


def _is_no_other_model(tx: Transaction, scope: ReadScope, id: Digest, name: str) -> bool:
    """Whether the name in a config leads to the same weights (as those of a cast or a quantised copy), or to
    no registered base, and may then be a folder on another machine.
    """
    from adaptry.adapters.base_record import BaseRecord  # not needed for an unknown base
    from adaptry.bases.fingerprinting.match import match_bases

    found = bases.find(tx, scope, name)
    if not found:
        return may_be_folder(name)
    records = [bases.record(tx, one) for one in (id, *found)] if len(found) == 1 else []
    match records:
        case [BaseRecord() as own, BaseRecord() as named]:
            return match_bases(own, named).is_same_model
    return False


def known_inspections(tx: Transaction, tree: Manifest) -> Mapping[str, WeightsInspection]:
    """The inspection results of a revision's weights files. Files of old versions may not be inspected
    yet.
    """
    found = inspections.find(tx, set(tree.weights.values()))
    return {path: found[digest] for path, digest in tree.weights.items() if digest in found}


def check_against_base(
    adapter: Adapter,
    base: ResolvedBase,
    record: BaseRecord | None,
    inspections: Mapping[str, WeightsInspection],
) -> BaseCheck:
    """Checks an adapter against its base; without a record, checks it alone. Findings from the `inspections`
    of its weights files, by path, are part of the report, and do not affect the base status.
    """
    claimed_id = str(base.claimed_id) if base.claimed_id else None
    name = base.name if record else base.claimed_name or claimed_id
    report = check(adapter, record, name, other_names=base.other_names)
    status: BaseStatus = "unknown"
    if record and not report.is_blocked:
        status = "verified"
    elif base.claimed_id or base.claimed_name:
        status = "declared"
    weights = weights_findings(adapter.spec, inspections, partial(find_unchanged_parts, adapter, record))
    whole = report.model_copy(
        update={"findings": (*report.findings, *weights, *check_copies(adapter, record))}
    )
    return BaseCheck(base.id or base.claimed_id, base.name or base.claimed_name, status, whole)
