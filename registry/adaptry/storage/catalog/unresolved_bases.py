"""Versions waiting for their base: admitted as declared, to be checked again once the base is registered."""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.lazy_modules import orm, sa, sm
from adaptry.storage.catalog.manifests import stored_manifest


@dataclass(frozen=True, slots=True)
class PendingVersion:
    """A version that declared a base, to be checked again now that the base is registered. `bound_base` is
    set if a later push claimed the base, which the version's manifest does not have.
    """

    key: int
    adapter: AdapterRecord
    number: int
    manifest: Manifest
    bound_base: Digest | None


def pending_for_base(
    tx: Transaction, id: Digest, known: Sequence[str], after: int, limit: int
) -> tuple[PendingVersion, ...]:
    """Versions that declared this base by id, or without an id by one of its names; oldest first."""
    by_name = (sm.col(orm.VersionRow.base_id).is_(None)) & (sm.col(orm.VersionRow.base_name).in_(known))
    query = (
        sm.select(orm.VersionRow, orm.AdapterRow, orm.RevisionRow.manifest)
        .join(orm.AdapterRow, sm.col(orm.AdapterRow.id) == sm.col(orm.VersionRow.adapter_id))
        .join(orm.RevisionRow, sm.col(orm.RevisionRow.digest) == sm.col(orm.VersionRow.digest))
        .where(
            orm.VersionRow.base_status == "declared",
            sa.or_(sm.col(orm.VersionRow.base_id) == id.hex, by_name),
            sm.col(orm.VersionRow.id) > after,
            sm.col(orm.AdapterRow.deleted_at).is_(None),
        )
        .order_by(sm.col(orm.VersionRow.id))
        .limit(limit)
    )
    return tuple(
        PendingVersion(
            key=version.id or 0,
            adapter=AdapterRecord(
                adapter.id or 0,
                AdapterName.parse(adapter.name),
                "public" if adapter.visibility == "public" else "private",
            ),
            number=version.number,
            manifest=stored_manifest(Digest(version.digest), manifest),
            bound_base=Digest(version.bound_base) if version.bound_base else None,
        )
        for version, adapter, manifest in tx.exec(query)
    )
