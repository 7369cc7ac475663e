"""The base that a version itself declared, for readers who may not see the registered one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

from sqlalchemy import ColumnElement, not_, select

from adaptry.adapters.spec import Spec
from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.report import CheckReport
from adaptry.registry.records import VersionInfo
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.encoding import decode_model
from adaptry.storage.catalog.predicates import one_of, predicate, select_where
from adaptry.storage.catalog.rows import AdapterRow, BaseRow, RevisionRow, VersionDetailRow, VersionRow
from adaptry.storage.catalog.version_info import table_of

_MAX_SHORT_REPORT = 8 << 10
"""Stored bytes of a version up to which its declaration is kept, so that all together take a few MiB."""

_BASES, _ADAPTERS, _VERSIONS = (table_of(row).c for row in (BaseRow, AdapterRow, VersionRow))
_REVISIONS, _DETAILS = table_of(RevisionRow).c, table_of(VersionDetailRow).c
_HIDDEN = select(_BASES.id)
_DECLARED = (
    select(_ADAPTERS.name, _VERSIONS.number, _REVISIONS.manifest, _DETAILS.spec, _DETAILS.report)
    .join_from(table_of(AdapterRow), table_of(VersionRow), _VERSIONS.adapter_id == _ADAPTERS.id)
    .join(table_of(RevisionRow), _REVISIONS.digest == _VERSIONS.digest)
    .join(table_of(VersionDetailRow), _DETAILS.version_id == _VERSIONS.id)
)


@dataclass(frozen=True, slots=True)
class DeclaredBase:
    """A version's declared base id and name, the name in its config, and the report of its checks."""

    base_id: Digest | None
    base_name: str | None
    written: str | None
    report: CheckReport


def hidden_bases(tx: Reads, scope: ReadScope, ids: Collection[str]) -> frozenset[str]:
    """The base ids (hexadecimal) among these that belong to registered bases outside the read scope."""
    if scope.namespaces is None or not ids:
        return frozenset()
    where = [one_of(tx, _BASES.id, ids), predicate(_is_hidden, scope)]
    return frozenset(row.id for row in select_where(tx, _HIDDEN, where))


def _is_hidden(scope: ReadScope) -> ColumnElement[bool]:
    seen = scope.base_condition()
    assert seen is not None
    return not_(seen)


def declarations(tx: Reads, versions: Sequence[VersionInfo]) -> dict[tuple[str, int], DeclaredBase]:
    """The declaration of each of the versions, by name and number."""
    wanted = {(str(version.name), version.number) for version in versions}
    where = [
        one_of(tx, _ADAPTERS.name, sorted({name for name, _ in wanted})),
        one_of(tx, _VERSIONS.digest, sorted({version.digest.hex for version in versions})),
    ]
    return {
        (row.name, row.number): _declaration(row.manifest, row.spec, row.report)
        for row in select_where(tx, _DECLARED, where)
        if (row.name, row.number) in wanted
    }


def _declaration(manifest: bytes, spec: bytes, report: bytes) -> DeclaredBase:
    """The declaration in these stored bytes. Short ones are cached: a page asks for the same versions again
    and again, and parsing them would take most of its time.
    """
    is_short = len(manifest) + len(spec) + len(report) <= _MAX_SHORT_REPORT
    return _read_short(manifest, spec, report) if is_short else _read(manifest, spec, report)


def _read(manifest: bytes, spec: bytes, report: bytes) -> DeclaredBase:
    claim, of_file = Manifest.parse(manifest).base, decode_model(Spec, spec)
    name = claim.name if claim and (claim.name or claim.id) else of_file.base_name
    kept = decode_model(CheckReport, report)
    return DeclaredBase(claim.id if claim else None, name, of_file.base_name, kept)


_read_short = lru_cache(maxsize=1024)(_read)
