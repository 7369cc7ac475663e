"""The base that a version itself declared, for readers who may not see the registered one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from adaptry.adapters.spec import Spec
from adaptry.core.digest import Digest
from adaptry.core.manifest import Manifest
from adaptry.core.report import CheckReport
from adaptry.registry.records import VersionInfo
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.encoding import decode_model
from adaptry.storage.catalog.lazy_modules import orm, sa, sm

_SHORT = 8 << 10
"""Stored bytes of a version up to which its declaration is kept, so that all together take a few MiB."""


@dataclass(frozen=True, slots=True)
class DeclaredBase:
    """A version's declared base id and name, the name in its config, and the report of its checks."""

    base_id: Digest | None
    base_name: str | None
    written: str | None
    report: CheckReport


def hidden_bases(tx: Transaction, scope: ReadScope, ids: Collection[Digest]) -> frozenset[Digest]:
    """The ids among these of registered bases outside the read scope."""
    seen = scope.base_condition()
    if seen is None or not ids:
        return frozenset()
    query = sa.select(sm.col(orm.BaseRow.id)).where(
        sm.col(orm.BaseRow.id).in_([id.hex for id in ids]), sa.not_(seen)
    )
    return frozenset(Digest(id) for id in tx.execute(query).scalars())


def declarations(tx: Transaction, versions: Sequence[VersionInfo]) -> dict[tuple[str, int], DeclaredBase]:
    """The declaration of each of the versions, by name and number."""
    wanted = {(str(version.name), version.number) for version in versions}
    query = (
        sa.select(
            sm.col(orm.AdapterRow.name),
            sm.col(orm.VersionRow.number),
            sm.col(orm.RevisionRow.manifest),
            sm.col(orm.VersionDetailRow.spec),
            sm.col(orm.VersionDetailRow.report),
        )
        .join(orm.VersionRow, sm.col(orm.VersionRow.adapter_id) == sm.col(orm.AdapterRow.id))
        .join(orm.RevisionRow, sm.col(orm.RevisionRow.digest) == sm.col(orm.VersionRow.digest))
        .join(orm.VersionDetailRow, sm.col(orm.VersionDetailRow.version_id) == sm.col(orm.VersionRow.id))
        .where(
            sm.col(orm.AdapterRow.name).in_({name for name, _ in wanted}),
            sm.col(orm.VersionRow.digest).in_({version.digest.hex for version in versions}),
        )
    )
    return {
        (name, number): _declaration(manifest, spec, report)
        for name, number, manifest, spec, report in tx.execute(query)
        if (name, number) in wanted
    }


def _declaration(manifest: bytes, spec: bytes, report: bytes) -> DeclaredBase:
    """The declaration in these stored bytes. That of short ones is kept: a page asks for the same versions
    again and again, and reading them takes most of its time.
    """
    is_short = len(manifest) + len(spec) + len(report) <= _SHORT
    return _read_short(manifest, spec, report) if is_short else _read(manifest, spec, report)


def _read(manifest: bytes, spec: bytes, report: bytes) -> DeclaredBase:
    claim, of_file = Manifest.parse(manifest).base, decode_model(Spec, spec)
    name = claim.name if claim and (claim.name or claim.id) else of_file.base_name
    kept = decode_model(CheckReport, report)
    return DeclaredBase(claim.id if claim else None, name, of_file.base_name, kept)


_read_short = lru_cache(maxsize=1024)(_read)
