"""Repairs rows: derives derived rows again, and restores manifests from their original bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime

from sqlalchemy import delete, update
from sqlmodel import col, select

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import detect_format
from adaptry.adapters.spec import Spec
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, CorruptData
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.core.report import CheckReport
from adaptry.storage.catalog import (
    adapters,
    bases,
    damage,
    events,
    evidence,
    files,
    folded_names,
    metrics,
    scan,
    terms,
    versions,
)
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.encoding import decode_map, decode_model, encode_model
from adaptry.storage.catalog.manifests import stored_manifest
from adaptry.storage.catalog.rows import (
    AdapterRow,
    BaseFileRow,
    BaseNameRow,
    BaseRow,
    CommitRow,
    EventRow,
    MetricRow,
    MetricSummaryRow,
    NamespaceRow,
    PostingRow,
    RevisionRow,
    VersionDetailRow,
    VersionRow,
)
from adaptry.storage.catalog.versions import Admission


@dataclass(frozen=True, slots=True)
class VersionSource:
    """A version from its rows: its key, its name with number, its manifest, its force reason, and its bound
    base.
    """

    key: int
    name: str
    manifest: Manifest
    forced: str | None
    bound_base: Digest | None = None


def keys_of_versions(tx: Transaction, after: int, limit: int) -> list[int]:
    query = select(VersionRow.id).where(col(VersionRow.id) > after).order_by(col(VersionRow.id)).limit(limit)
    return [key for key in tx.exec(query) if key is not None]


def read_version_source(tx: Transaction, key: int) -> VersionSource | None:
    """The version; None if it was deleted. Raises `CorruptData` if its manifest is damaged."""
    row = tx.get(VersionRow, key)
    if row is None:
        return None
    adapter, detail = tx.get_one(AdapterRow, row.adapter_id), tx.get(VersionDetailRow, key)
    manifest = versions.manifest(tx, Digest(row.digest))
    return VersionSource(
        key,
        f"{adapter.name}@{row.number}",
        manifest,
        detail.forced if detail else None,
        Digest(row.bound_base) if row.bound_base else None,
    )


def spec_of(tx: Transaction, key: int) -> Spec | None:
    """The stored spec. Raises the errors of reading damaged rows."""
    row = tx.get(VersionDetailRow, key)
    return decode_model(Spec, row.spec) if row else None


def report_of(tx: Transaction, key: int) -> CheckReport | None:
    """The stored report. Raises the errors of reading damaged rows."""
    row = tx.get(VersionDetailRow, key)
    return decode_model(CheckReport, row.report) if row else None


def put_version(tx: Transaction, key: int, derived: Admission, at: datetime, by: str) -> None:
    """Stores all derived data of a version, as derived now. No error if the version was deleted."""
    row = tx.get(VersionRow, key)
    if row is None:
        return
    spec, base_check = derived.spec, derived.base_check
    versions.fill_derived(row, derived)
    detail = tx.get(VersionDetailRow, key) or VersionDetailRow(version_id=key, spec=b"", report=b"")
    detail.spec, detail.report, detail.forced = (
        spec.data,
        encode_model(base_check.report),
        derived.forced,
    )
    tx.add_all([row, detail])
    tx.flush()
    index_version(tx, key)
    if _last_status(tx, row) != base_check.status:
        adapter = tx.get_one(AdapterRow, row.adapter_id)
        events.record(
            tx,
            "version.rechecked",
            at=at,
            by=by,
            adapter=adapters.find(tx, AdapterName.parse(adapter.name)),
            number=row.number,
            detail={"base": base_check.base_id, "base_status": base_check.status},
        )


def index_version(tx: Transaction, key: int) -> None:
    """Rebuilds the search terms of a version. No error if it was deleted."""
    row = tx.get(VersionRow, key)
    if row is None:
        return
    tx.execute(delete(PostingRow).where(col(PostingRow.version_id) == key))
    terms.add(tx, key, versions.terms_of(tx, row))


def summarise_metrics(tx: Transaction, key: int) -> None:
    """Rebuilds the search summary of a version's metrics."""
    tx.execute(delete(MetricSummaryRow).where(col(MetricSummaryRow.version_id) == key))
    by_metric: dict[str, list[float]] = {}
    query = select(MetricRow).where(MetricRow.version_id == key, metrics.is_logged())
    for row in tx.exec(query.order_by(col(MetricRow.id))):
        by_metric.setdefault(row.metric, []).append(row.value)
    tx.add_all(
        MetricSummaryRow(version_id=key, metric=metric, newest=each[-1], highest=max(each), lowest=min(each))
        for metric, each in by_metric.items()
    )
    tx.flush()


def rebuild_namespaces(tx: Transaction) -> None:
    """Rebuilds the list of the namespaces in use."""
    used = set(tx.exec(select(AdapterRow.namespace).distinct()))
    known = set(tx.exec(select(NamespaceRow.name)))
    tx.execute(delete(NamespaceRow).where(col(NamespaceRow.name).in_(known - used)))
    tx.add_all(NamespaceRow(name=name) for name in used - known)
    tx.flush()
    folded_names.refold(tx)


def summarise_base(tx: Transaction, id: Digest) -> None:
    """Rebuilds a base's summary for listings, and the namespaces of its names. No error if it was deleted."""
    row = tx.exec(select(BaseRow).where(BaseRow.id == id.hex)).first()
    if row is not None:
        record = decode_model(BaseRecord, row.record)
        row.architecture = record.architecture.hex
        row.summary = bases.summary(record, row.created_at, row.created_by)
    for name in tx.exec(select(BaseNameRow).where(BaseNameRow.base_id == id.hex)):
        name.namespace = bases.namespace_of(name.name)


def store_weights_digests(tx: Transaction, manifest: Manifest, weights: Digest) -> None:
    """Stores the weights digest of a manifest's weights file."""
    format = detect_format(entry.path for entry in manifest.files)
    entry = manifest.file(format.weights) if format else None
    if entry is not None:
        files.store_weights_digest(tx, entry.sha256, weights)


def put_manifest(tx: Transaction, revision: Digest, data: bytes) -> None:
    """Restores the bytes of a damaged manifest. Raises `CorruptData` if they have another digest."""
    if Digest.of(data) != revision:
        raise CorruptData(f"these are not the bytes of revision {revision.brief}; nothing was changed")
    tx.execute(update(RevisionRow).where(col(RevisionRow.digest) == revision.hex).values(manifest=data))
    damage.clear_damage(tx, revision)


def holders(tx: Transaction, revision: Digest) -> tuple[AdapterName, ...]:
    """The adapters that have a commit of a revision."""
    query = select(AdapterRow.name).join(CommitRow, col(CommitRow.adapter_id) == col(AdapterRow.id))
    names = tx.exec(query.where(CommitRow.digest == revision.hex).distinct().order_by(AdapterRow.name))
    return tuple(map(AdapterName.parse, names))


def manifest_bytes(tx: Transaction, revision: Digest) -> bytes:
    """The raw bytes in the row, even if damaged; empty if there is no row."""
    row = tx.get(RevisionRow, revision.hex)
    return row.manifest if row else b""


OwnedCopy = tuple[Digest, AdapterName | Digest, Digest | None, str]
"""A file, its owner, the owner's revision with it (None for a base and for evidence), and its path there."""


def iter_owned_copies(catalog: Catalog, wanted: Collection[Digest]) -> Iterator[OwnedCopy]:
    """Every copy of these files that an owner has."""
    if not wanted:
        return
    for revision, data in scan.manifests(catalog):
        try:
            manifest = stored_manifest(revision, data)
        except AdaptryError:
            continue
        named = [entry for entry in manifest.files if entry.sha256 in wanted]
        if named:
            with catalog.read() as tx:
                owners = holders(tx, revision)
            yield from ((entry.sha256, owner, revision, entry.path) for entry in named for owner in owners)
    with catalog.read() as tx:
        for row in tx.exec(select(BaseFileRow)):
            if Digest(row.digest) in wanted:
                yield Digest(row.digest), Digest(row.base_id), None, row.path
        yield from evidence.owned_copies(tx, wanted)


def _last_status(tx: Transaction, row: VersionRow) -> str | None:
    """The base status according to the version's events."""
    query = select(EventRow.detail).where(
        EventRow.adapter_id == row.adapter_id,
        EventRow.number == row.number,
        col(EventRow.kind).in_(("version.pushed", "version.rechecked", "version.bound")),
    )
    detail = tx.exec(query.order_by(col(EventRow.seq).desc())).first()
    return decode_map(detail).get("base_status") if detail else None
