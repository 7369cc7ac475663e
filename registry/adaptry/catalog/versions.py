"""Versions in the catalog: admitted once, numbered for ever, found by what stands behind a ref's `@`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import update
from sqlmodel import col, select

from adaptry.adapter.spec import Spec
from adaptry.catalog import adapters, cursors, terms
from adaptry.catalog.adapters import Line
from adaptry.catalog.database import Transaction
from adaptry.catalog.packing import listed, packed, unlisted, unpacked
from adaptry.catalog.rows import (
    AdapterRow,
    AliasRow,
    MetricSummaryRow,
    RevisionRow,
    VersionDetailRow,
    VersionRow,
)
from adaptry.digest import Digest
from adaptry.errors import Conflict
from adaptry.lifecycle import State
from adaptry.manifest import Manifest
from adaptry.records import BaseStatus, Page, VersionDetail, VersionInfo
from adaptry.refs import AdapterName, ByDigest, Label, Latest, Number, Selector
from adaptry.report import Report


@dataclass(frozen=True, slots=True)
class Stored:
    """A version as the catalog knows it: its key, and what rules need to know of it."""

    key: int
    number: int
    digest: Digest
    state: State


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a version's base, and what the checks said."""

    base_id: Digest | None
    base_name: str | None
    status: BaseStatus
    report: Report


@dataclass(frozen=True, slots=True)
class Admission:
    """A version about to be: its manifest as declared, and what was derived from its files."""

    manifest: Manifest
    spec: Spec
    weights: Digest
    verdict: Verdict
    forced: str | None


def insert(tx: Transaction, line: Line, new: Admission, at: datetime, by: str) -> Stored:
    """Admits a version and numbers it."""
    digest = new.manifest.digest
    if tx.get(RevisionRow, digest.hex) is None:
        tx.add(RevisionRow(digest=digest.hex, manifest=new.manifest.to_bytes()))
        tx.flush()
    spec, verdict = new.spec, new.verdict
    row = VersionRow(
        adapter_id=line.key,
        number=adapters.take_number(tx, line, at),
        digest=digest.hex,
        created_at=at,
        created_by=by,
        method=spec.method,
        rank=spec.rank,
        targets=listed(spec.targets),
        traits=listed(spec.traits),
        parameters=spec.parameters,
        size=new.manifest.size,
        weights=new.weights.hex,
        base_id=verdict.base_id.hex if verdict.base_id else None,
        base_name=verdict.base_name,
        base_status=verdict.status,
        findings=len(verdict.report.findings),
    )
    tx.add(row)
    tx.flush()
    assert row.id is not None
    tx.add(
        VersionDetailRow(
            version_id=row.id, spec=packed(spec), report=packed(verdict.report), forced=new.forced
        )
    )
    own = [("method", spec.method), ("state", row.state), ("by", by), *_base_terms(verdict)]
    own += [("module", target) for target in spec.targets] + [("trait", trait) for trait in spec.traits]
    terms.add(tx, row.id, [*own, *adapters.own_terms(tx, line)])
    return _stored(row)


def settle(tx: Transaction, key: int, verdict: Verdict) -> None:
    """Replaces what is known of a version's base, after it was checked again."""
    tx.execute(
        update(VersionRow)
        .where(col(VersionRow.id) == key)
        .values(
            base_id=verdict.base_id.hex if verdict.base_id else None,
            base_name=verdict.base_name,
            base_status=verdict.status,
            findings=len(verdict.report.findings),
        )
    )
    tx.execute(
        update(VersionDetailRow)
        .where(col(VersionDetailRow.version_id) == key)
        .values(report=packed(verdict.report))
    )
    terms.remove(tx, key, ["base"])
    terms.add(tx, key, _base_terms(verdict))


def find(tx: Transaction, line: Line, selector: Selector) -> Stored | None:
    """What a selector means now. Raises `Conflict` for a digest prefix that several versions share."""
    query = select(VersionRow).where(VersionRow.adapter_id == line.key)
    match selector:
        case Latest():
            query = query.where(VersionRow.state == "active").order_by(col(VersionRow.number).desc())
        case Number(number):
            query = query.where(VersionRow.number == number)
        case Label(label):
            query = query.join(AliasRow, col(AliasRow.version_id) == col(VersionRow.id))
            query = query.where(AliasRow.adapter_id == line.key, AliasRow.alias == label)
        case ByDigest(prefix):
            query = query.where(VersionRow.digest >= prefix, VersionRow.digest < prefix + "g")
            rows = tx.exec(query.limit(2)).all()
            if len(rows) > 1:
                raise Conflict(f"{line.name} has several versions that begin with {prefix}; give more digits")
            return _stored(rows[0]) if rows else None
    row = tx.exec(query.limit(1)).first()
    return _stored(row) if row else None


def manifest(tx: Transaction, digest: Digest) -> Manifest:
    """The manifest of a revision that some version has."""
    return Manifest.parse(tx.exec(select(RevisionRow.manifest).where(RevisionRow.digest == digest.hex)).one())


def info(tx: Transaction, stored: Stored) -> VersionInfo:
    return by_keys(tx, [stored.key])[0]


def detail(tx: Transaction, stored: Stored) -> VersionDetail:
    row = tx.get_one(VersionDetailRow, stored.key)
    return VersionDetail(
        version=info(tx, stored),
        manifest=manifest(tx, stored.digest),
        spec=unpacked(Spec, row.spec),
        report=unpacked(Report, row.report),
        forced=row.forced,
    )


def page(tx: Transaction, line: Line, cursor: str | None, limit: int) -> Page[VersionInfo]:
    """A line's versions, newest first."""
    about = f"versions {line.key}"
    before = cursors.decode_number(cursor, about)
    query = select(VersionRow.id, VersionRow.number).where(VersionRow.adapter_id == line.key)
    if before is not None:
        query = query.where(VersionRow.number < before)
    rows = tx.exec(query.order_by(col(VersionRow.number).desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    following = cursors.encode(shown[-1][1], about) if len(rows) > limit else None
    return Page[VersionInfo](items=by_keys(tx, [key for key, _ in shown if key is not None]), next=following)


def count_download(tx: Transaction, stored: Stored) -> None:
    tx.execute(
        update(VersionRow)
        .where(col(VersionRow.id) == stored.key)
        .values(downloads=col(VersionRow.downloads) + 1)
    )


def by_keys(tx: Transaction, keys: Sequence[int]) -> tuple[VersionInfo, ...]:
    """Versions in the order of `keys`, in a fixed number of queries."""
    query = select(VersionRow, AdapterRow.name).join(AdapterRow).where(col(VersionRow.id).in_(keys))
    found = {row.id: (row, name) for row, name in tx.exec(query)}
    aliases: dict[int, list[str]] = defaultdict(list)
    pairs = select(AliasRow.version_id, AliasRow.alias).where(col(AliasRow.version_id).in_(keys))
    for key, alias in tx.exec(pairs.order_by(AliasRow.alias)):
        aliases[key or 0].append(alias)
    metrics: dict[int, dict[str, float]] = defaultdict(dict)
    newest = select(MetricSummaryRow).where(col(MetricSummaryRow.version_id).in_(keys))
    for summary in tx.exec(newest.order_by(MetricSummaryRow.metric)):
        metrics[summary.version_id][summary.metric] = summary.newest
    return tuple(_info(*found[key], aliases[key], metrics[key]) for key in keys)


def _info(row: VersionRow, name: str, aliases: Iterable[str], metrics: dict[str, float]) -> VersionInfo:
    return VersionInfo(
        name=AdapterName.parse(name),
        number=row.number,
        digest=Digest(row.digest),
        state=cast(State, row.state),
        created_at=row.created_at,
        created_by=row.created_by,
        method=row.method,
        rank=row.rank,
        targets=unlisted(row.targets),
        traits=unlisted(row.traits),
        parameters=row.parameters,
        size=row.size,
        weights=Digest(row.weights),
        base_id=Digest(row.base_id) if row.base_id else None,
        base_name=row.base_name,
        base_status=cast(BaseStatus, row.base_status),
        aliases=tuple(aliases),
        metrics=metrics,
        findings=row.findings,
        downloads=row.downloads,
    )


def _base_terms(verdict: Verdict) -> list[tuple[str, str]]:
    names = [verdict.base_name] if verdict.base_name else []
    ids = [str(verdict.base_id)] if verdict.base_id else []
    return [("base", text) for text in names + ids]


def _stored(row: VersionRow) -> Stored:
    assert row.id is not None
    return Stored(row.id, row.number, Digest(row.digest), cast(State, row.state))
