"""Checks that an engine serves a version as trained: compares the base by content, applies engine limits.

This is checked before anything is loaded, because engines accept adapters that do not fit and then give wrong
answers.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.checks.runtimes import Runtime, check_runtime
from adaptry.core.errors import CheckFailed, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.cache.cache import CachedAdapter
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo

_SAME_BASE = ("exact", "same_weights", "cast")


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """An engine's version and options, and the base it serves."""

    runtime: Runtime
    base: BaseRecord


def require_base_match(registry: Registry, version: VersionInfo, base: BaseRecord) -> None:
    """Raises `CheckFailed` unless the version was trained on these weights, or on weights of which these are
    a cast or a quantised copy. A base that is declared but not verified does not count."""
    ref = version.label
    named = version.base_name or (version.base_id.brief if version.base_id else "no base")
    if version.base_id is None or version.base_status != "verified":
        raise CheckFailed(
            f"{ref} only declares that it is for {named}, which is not registered by content, so it cannot "
            "be compared with the base served here; register the base once (adaptry base add FOLDER --name"
            " NAME), or let this worker's token see it (adaptry base edit NAME --visibility internal), or"
            f" bind the version to a registered base (adaptry base bind {ref} BASE), then try again"
        )
    if version.base_id == base.id:
        return
    try:
        found = match_bases(registry.bases.record(version.base_id), base)
    except NotFound:
        raise CheckFailed(f"{ref} is for {named}, which this worker's token may not see") from None
    if found.level not in _SAME_BASE:
        raise CheckFailed(
            f"{ref} was trained on {named}, and this engine serves another model: {found.evidence}. Send"
            f" the request to a server of {named}"
        )


def require_compatible(cached: CachedAdapter, profile: EngineProfile) -> None:
    """Raises `CheckFailed`, with a remedy, if the engine would refuse the adapter or serve it wrongly."""
    require_compatible_folder(cached.path, cached.version.label, profile)


def require_compatible_folder(folder: Path, label: str, profile: EngineProfile) -> None:
    """Like `require_compatible`, for the adapter in a folder, which the error calls `label`."""
    found = check_runtime(open_dir(folder), profile.runtime, profile.base)
    if found.outcome == "as_trained":
        return
    first = found.findings[0]
    raise CheckFailed(f"{label} on {found.runtime}: {first.reason} → {first.remedy_for(label)}")
