"""Versions in the catalog: admitted once, with permanent numbers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

from adaptry.adapters.spec import Spec
from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import State
from adaptry.core.manifest import Manifest
from adaptry.core.report import CheckReport
from adaptry.registry import records
from adaptry.registry.records import BaseStatus
from adaptry.storage.catalog import adapters, commits, inspections, stored_use, terms
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.encoding import decode_list, decode_model, encode_list, encode_model
from adaptry.storage.catalog.inspections import EncodedInspection
from adaptry.storage.catalog.lazy_modules import orm, sa, sm, tables
from adaptry.storage.catalog.manifests import stored_manifest
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.prepared_changes import change, insert_new
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.version_info import Columns, columns_of, infos, key_parameters, values_of_keys


@statement
def _detail() -> Selection:
    return sa.select(tables.version_details).where(tables.version_details.c.version_id == sa.bindparam("key"))


@statement
def _manifest() -> Selection:
    return sa.select(tables.revisions.c.manifest).where(tables.revisions.c.digest == sa.bindparam("digest"))


_INDEXED = ("method", "state", "created_by", "base_id", "base_name", "targets", "traits")


@statement
def more_downloads() -> sa.Update:
    return (
        tables.versions.update()
        .where(tables.versions.c.id == sa.bindparam("key"))
        .values(downloads=tables.versions.c.downloads + sa.bindparam("count"))
    )


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """A version in the catalog: its key, and the values that rules need."""

    key: int
    number: int
    digest: Digest
    state: State


@dataclass(frozen=True, slots=True)
class BaseCheck:
    """A version's base and the report of its checks."""

    base_id: Digest | None
    base_name: str | None
    status: BaseStatus
    report: CheckReport


@dataclass(frozen=True, slots=True)
class EncodedSpec:
    """A spec as it is stored: the values of columns, and all of it as `data`, which for an adapter of many
    tensors is a tenth of the spec's size.
    """

    method: str
    rank: int | None
    alpha: float | None
    parameters: int
    targets: tuple[str, ...]
    traits: tuple[str, ...]
    base_name: str | None
    data: bytes

    @classmethod
    def of(cls, spec: Spec) -> EncodedSpec:
        return cls(
            spec.method,
            spec.rank,
            spec.alpha,
            spec.parameters,
            spec.targets,
            spec.traits,
            spec.base_name,
            encode_model(spec),
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """A version to be admitted: its manifest, the data derived from its files, the requested number, those
    inspections of its weights files that are not stored yet, and the licences that its README states.
    """

    manifest: Manifest
    spec: EncodedSpec
    weights: Digest
    base_check: BaseCheck
    forced: str | None
    number: int | None = None
    inspections: Mapping[Digest, EncodedInspection] = field(default_factory=dict)
    licences: tuple[str, ...] = ()


def insert(tx: Transaction, adapter: AdapterRecord, new: Admission, at: datetime, by: str) -> VersionRecord:
    """Admits a version and numbers it."""
    digest = commits.store_revision(tx, new.manifest)
    number = adapters.allocate_number(tx, adapter, at, new.number)
    columns = {
        "adapter_id": adapter.key,
        "number": number,
        "digest": digest.hex,
        "state": "active",
        "created_at": at,
        "created_by": by,
        **_derived_columns(new),
    }
    key = insert_new(tx, "versions", columns)
    stored_use.add_version(tx, adapter.name.namespace, by)
    details = {
        "version_id": key,
        "spec": new.spec.data,
        "report": encode_model(new.base_check.report),
        "forced": new.forced,
    }
    insert_new(tx, "version_details", details)
    terms.add(
        tx,
        key,
        [*_own_terms(columns, new.manifest, new.base_check.report), *terms.of_adapter(tx, adapter.key)],
    )
    return VersionRecord(key, number, digest, "active")


def fill_derived(row: orm.VersionRow, derived: Admission) -> None:
    """Sets the columns that follow from a version's files and its base."""
    for name, value in _derived_columns(derived).items():
        setattr(row, name, value)


def _derived_columns(derived: Admission) -> dict[str, object]:
    spec, base_check = derived.spec, derived.base_check
    return {
        "method": spec.method,
        "rank": spec.rank,
        "alpha": spec.alpha,
        "parameters": spec.parameters,
        "targets": encode_list(spec.targets),
        "traits": encode_list(spec.traits),
        "size": derived.manifest.size,
        "weights": derived.weights.hex,
        "base_id": base_check.base_id.hex if base_check.base_id else None,
        "base_name": base_check.base_name,
        "base_status": base_check.status,
        "findings": len(base_check.report.findings),
    }


def terms_of(tx: Transaction, row: orm.VersionRow) -> set[tuple[str, str]]:
    """The search terms of a version, derived from its rows. Raises `CorruptData`."""
    pointing = sm.select(orm.AliasRow.alias).where(orm.AliasRow.version_id == row.id)
    columns = {name: getattr(row, name) for name in _INDEXED}
    own = _own_terms(columns, manifest(tx, Digest(row.digest)), _report(tx, row))
    shared = terms.of_adapter(tx, row.adapter_id)
    return {*own, *shared, *(("alias", alias) for alias in tx.exec(pointing))}


def _report(tx: Transaction, row: orm.VersionRow) -> CheckReport:
    """The stored report. Raises `CorruptData`."""
    detail = tx.get(orm.VersionDetailRow, row.id)
    if detail is None:
        return CheckReport()
    try:
        return decode_model(CheckReport, detail.report)
    except (ValueError, zlib.error):
        raise CorruptData(f"the check report of version {row.number} cannot be read") from None


def _own_terms(columns: Mapping[str, Any], manifest: Manifest, report: CheckReport) -> list[tuple[str, str]]:
    """The terms of a version itself, without those of its adapter and its aliases. (`Any`: columns of many
    types; those of `_INDEXED` are read.)
    """
    base_id = [f"sha256:{columns['base_id']}"] if columns["base_id"] else []
    return [
        ("method", columns["method"]),
        ("state", columns["state"]),
        ("by", columns["created_by"]),
        *(("base", text) for text in [*([columns["base_name"]] if columns["base_name"] else []), *base_id]),
        *(("module", target) for target in decode_list(columns["targets"])),
        *(("trait", trait) for trait in decode_list(columns["traits"])),
        *(("parent", str(parent)) for parent in manifest.parents),
        *_finding_terms(report),
    ]


def _finding_terms(report: CheckReport) -> list[tuple[str, str]]:
    return [("finding", code) for code in dict.fromkeys(found.code for found in report.findings)]


def set_base_check(tx: Transaction, key: int, base_check: BaseCheck) -> None:
    """Replaces a version's base and report, after it was checked again."""
    tx.execute(
        sa.update(orm.VersionRow)
        .where(sm.col(orm.VersionRow.id) == key)
        .values(
            base_id=base_check.base_id.hex if base_check.base_id else None,
            base_name=base_check.base_name,
            base_status=base_check.status,
            findings=len(base_check.report.findings),
        )
    )
    tx.execute(
        sa.update(orm.VersionDetailRow)
        .where(sm.col(orm.VersionDetailRow.version_id) == key)
        .values(report=encode_model(base_check.report))
    )
    terms.remove(tx, key, ["base", "finding"])
    terms.add(tx, key, [*_base_terms(base_check), *_finding_terms(base_check.report)])


def bound_base(tx: Transaction, key: int) -> Digest | None:
    """The base that the version was bound to."""
    hex = tx.exec(sm.select(orm.VersionRow.bound_base).where(orm.VersionRow.id == key)).first()
    return Digest(hex) if hex else None


def bind_base(tx: Transaction, key: int, base: Digest, base_check: BaseCheck) -> None:
    """Binds a version to a base, with the report of the check against it."""
    tx.execute(sa.update(orm.VersionRow).where(sm.col(orm.VersionRow.id) == key).values(bound_base=base.hex))
    set_base_check(tx, key, base_check)


def set_report(tx: Transaction, key: int, report: CheckReport) -> None:
    """Replaces a version's report, after its weights were inspected."""
    tx.execute(
        sa.update(orm.VersionRow)
        .where(sm.col(orm.VersionRow.id) == key)
        .values(findings=len(report.findings))
    )
    tx.execute(
        sa.update(orm.VersionDetailRow)
        .where(sm.col(orm.VersionDetailRow.version_id) == key)
        .values(report=encode_model(report))
    )
    terms.remove(tx, key, ["finding"])
    terms.add(tx, key, _finding_terms(report))


def manifest(tx: Reads, digest: Digest) -> Manifest:
    """The manifest of a revision of a version or commit. Raises `CorruptData`."""
    found = run_select(tx, _manifest, {"digest": digest.hex})
    return stored_manifest(digest, found[0].manifest if found else b"")


def detail(tx: Reads, stored: VersionRecord) -> records.VersionDetail:
    return details(tx, columns_of(tx, [stored.key]))[0]


def decode_spec(data: bytes) -> Spec:
    """Decodes a stored spec."""
    return decode_model(Spec, data)


def details(
    tx: Reads, found: Sequence[Columns], spec_of: Callable[[bytes], Spec] = decode_spec
) -> tuple[records.VersionDetail, ...]:
    """The versions in rows of these columns, in the same order, with three statements. Raises
    `CorruptData`.
    """
    if not found:
        return ()
    size, values = values_of_keys([columns.id for columns in found])
    stored = {row.version_id: row for row in run_select(tx, _details_of_keys(size), values)}
    if missing := [columns for columns in found if columns.id not in stored]:
        raise _unreadable(missing[0])
    rows = [stored[columns.id] for columns in found]
    manifests = [
        stored_manifest(Digest(columns.digest), row.manifest)
        for columns, row in zip(found, rows, strict=True)
    ]
    inspected = inspections.summaries(tx, [manifest.weights.values() for manifest in manifests])
    derived = [_derived(columns, row, spec_of) for columns, row in zip(found, rows, strict=True)]
    return tuple(
        records.VersionDetail(
            version=version,
            manifest=manifest,
            spec=spec,
            report=report,
            forced=row.forced,
            inspection=summary,
        )
        for version, manifest, row, (spec, report), summary in zip(
            infos(tx, found), manifests, rows, derived, inspected, strict=True
        )
    )


def _derived(columns: Columns, row: Columns, spec_of: Callable[[bytes], Spec]) -> tuple[Spec, CheckReport]:
    """The stored spec and report of a version. Raises `CorruptData`."""
    try:
        return spec_of(row.spec), decode_model(CheckReport, row.report)
    except (ValueError, zlib.error):
        raise _unreadable(columns) from None


def _unreadable(columns: Columns) -> CorruptData:
    return CorruptData(
        f"the stored data of version {columns.number} (sha256:{columns.digest[:12]}) is incomplete or"
        " damaged; run `adaptry repair` on the registry's machine"
    )


@lru_cache(maxsize=8)
def _details_of_keys(size: int) -> Selection:
    """(`Any`: typed by its columns.)"""
    return (
        sa.select(tables.version_details, tables.revisions.c.manifest)
        .join_from(
            tables.version_details,
            tables.versions,
            tables.versions.c.id == tables.version_details.c.version_id,
        )
        .join(tables.revisions, tables.revisions.c.digest == tables.versions.c.digest)
        .where(tables.version_details.c.version_id.in_(key_parameters(size)))
    )


def report(tx: Reads, stored: VersionRecord) -> CheckReport:
    """The report of the version's checks."""
    (row,) = run_select(tx, _detail, {"key": stored.key})
    return decode_model(CheckReport, row.report)


def count_downloads(tx: Transaction, stored: VersionRecord, count: int = 1) -> None:
    change(tx, more_downloads, {"key": stored.key, "count": count})


def _base_terms(base_check: BaseCheck) -> list[tuple[str, str]]:
    names = [base_check.base_name] if base_check.base_name else []
    ids = [str(base_check.base_id)] if base_check.base_id else []
    return [("base", text) for text in names + ids]


def to_record(row: orm.VersionRow | Columns) -> VersionRecord:
    assert row.id is not None
    return VersionRecord(row.id, row.number, Digest(row.digest), cast(State, row.state))


def get(tx: Transaction, key: int) -> VersionRecord:
    """The version with that key, which must exist."""
    return to_record(tx.get_one(orm.VersionRow, key))
