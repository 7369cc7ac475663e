"""Versions as shown to readers who may not see their base: as declared, with findings that need no base.

The check against a base is stored once, for everyone who may see that base. Others get the same result as if
the base were not registered, so its existence is not revealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adaptry.core.report import CheckReport
from adaptry.storage.catalog.access import ReadScope
from adaptry.storage.catalog.database import Reads

if TYPE_CHECKING:
    from adaptry.registry.records import VersionDetail, VersionInfo


def hide_bases(tx: Reads, scope: ReadScope, versions: Sequence[VersionInfo]) -> tuple[VersionInfo, ...]:
    """The versions, as this reader may see them."""
    return tuple(version for version, _ in _hide_bases(tx, scope, versions))


def hide_bases_in_details(
    tx: Reads, scope: ReadScope, details: Sequence[VersionDetail]
) -> tuple[VersionDetail, ...]:
    """Versions with their reports, as this reader may see them."""
    shown = _hide_bases(tx, scope, [detail.version for detail in details])
    return tuple(
        detail.model_copy(update={"version": version, "report": report or detail.report})
        for detail, (version, report) in zip(details, shown, strict=True)
    )


def hide_base_in_report(
    tx: Reads, scope: ReadScope, version: VersionInfo, report: CheckReport
) -> tuple[VersionInfo, CheckReport]:
    """Like `hide_bases`, for one version and its stored report."""
    shown, other = _hide_bases(tx, scope, [version])[0]
    return shown, other or report


def _hide_bases(
    tx: Reads, scope: ReadScope, versions: Sequence[VersionInfo]
) -> list[tuple[VersionInfo, CheckReport | None]]:
    """Each version, with its report if it differs from the stored one."""
    if scope.namespaces is None:
        return [(version, None) for version in versions]
    from adaptry.storage.catalog import declared_bases  # not needed if the caller may read everything

    ids = {version.base_id.hex for version in versions if version.base_id}
    hidden = declared_bases.hidden_bases(tx, scope, ids)
    if not hidden:
        return [(version, None) for version in versions]
    from adaptry.checks import without_base  # imports all checks; only hidden bases need them

    concerned = [one for one in versions if one.base_id and one.base_id.hex in hidden]
    declared = declared_bases.declarations(tx, concerned)
    found: list[tuple[VersionInfo, CheckReport | None]] = []
    for version in versions:
        if version.base_id is None or version.base_id.hex not in hidden:
            found.append((version, None))
            continue
        claim = declared[str(version.name), version.number]
        declared_id = str(claim.base_id) if claim.base_id else None
        report = without_base(claim.report, claim.base_name or declared_id, claim.written)
        update = {
            "base_id": claim.base_id,
            "base_name": claim.base_name,
            "base_status": "declared" if claim.base_id or claim.base_name else "unknown",
            "findings": len(report.findings),
        }
        found.append((version.model_copy(update=update), report))
    return found
