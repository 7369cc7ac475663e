"""The adapters that a worker's engine had loaded after the last pass, for its metrics and its health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Ref
from adaptry.integrations.serving.engines import AdapterUsage, EngineAdapter
from adaptry.integrations.serving.follow.last_use import LastUse
from adaptry.integrations.serving.worker.loaded_version import LoadedVersion
from adaptry.registry.records import VersionInfo


@dataclass(frozen=True, slots=True)
class Residency:
    """The state after a pass. Times are Unix times; `registry_answered_at` is None before the first answer.

    `is_settled`: whether everything that can be served has been loaded at some time since the worker's start.
    """

    engine: str
    versions: tuple[LoadedVersion, ...] = ()
    slots: int | None = None
    slots_used: int = 0
    open_recalls: int = 0
    problems: Mapping[str, str] = field(default_factory=dict)
    is_engine_up: bool = False
    is_registry_up: bool = False
    registry_answered_at: float | None = None
    is_settled: bool = False


def loaded_versions(
    loaded: Sequence[EngineAdapter],
    known: Mapping[str, VersionInfo],
    usage: Mapping[str, AdapterUsage],
    last_use: LastUse,
) -> tuple[LoadedVersion, ...]:
    """Each loaded version, once. `known`: the versions of the names that this worker loaded."""
    found: dict[tuple[str, Digest], LoadedVersion] = {}
    for one in loaded:
        version = known.get(one.name)
        adapter = str(version.name) if version else _adapter_of(one.name)
        if one.digest is None or adapter is None:
            continue
        before = found.get((adapter, one.digest))
        times = [at for at in (last_use.get(one.name), before.last_used if before else None) if at]
        found[adapter, one.digest] = LoadedVersion(
            adapter,
            version.number if version else (before.number if before else None),
            one.digest,
            max(times, default=None),
            usage.get(one.name) or (before.usage if before else None),
        )
    return tuple(found.values())


def _adapter_of(served_as: str) -> str | None:
    """The adapter in a name under which others loaded it; None if the name is not a ref."""
    try:
        return str(Ref.parse(served_as).name)
    except InvalidRef:
        return None
