"""Builds a worker's status report: what its engine has loaded, will load, and failed to serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef
from adaptry.core.refs import AdapterName
from adaptry.integrations.engine_probe import EngineInfo
from adaptry.integrations.serving.engines import EngineAdapter
from adaptry.integrations.serving.follow.backoff import ServedVersion
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import Condition, DroppedAdapter, ResidentReport, WorkerProblem, WorkerReport

_MOST_TROUBLES = 256


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """The worker's settings: its name, the refs to watch, those to preload, and how many adapters may be
    loaded at once (`slots`)."""

    name: str
    engine: str
    watch: tuple[str, ...]
    preload: tuple[str, ...] = ()
    slots: int | None = None
    lease: int = 60
    url: str | None = None


@dataclass(slots=True)
class ServingTimes:
    """Since when each version is served, and when its name was last used, if the engine reports it."""

    served_since: dict[ServedVersion, datetime] = field(default_factory=dict)
    last_used: dict[str, datetime] = field(default_factory=dict)


def loaded_residents(
    loaded: Sequence[EngineAdapter],
    names: Mapping[str, AdapterName],
    times: ServingTimes,
    busy: frozenset[str],
    withdrawn: Mapping[Digest, object],
) -> tuple[ResidentReport, ...]:
    """A resident for each loaded adapter whose name in the registry is known."""
    now = datetime.now(UTC)
    times.last_used |= dict.fromkeys(busy, now)
    found: list[ResidentReport] = []
    for one in loaded:
        name = names.get(one.name) or _adapter_of_name(one.name)
        if one.digest is None or name is None:
            continue
        condition: Condition = "draining" if one.digest in withdrawn else "serving"
        found.append(
            ResidentReport(
                name=name,
                digest=one.digest,
                served_as=one.name,
                condition=condition,
                since=times.served_since.setdefault((one.name, one.digest), now),
                last_used=times.last_used.get(one.name),
            )
        )
    return tuple(found)


def unserved_residents(
    versions: Iterable[tuple[str, VersionInfo, str | None]], condition: Condition
) -> tuple[ResidentReport, ...]:
    """Residents that are not served, from name, version and an optional reason."""
    now = datetime.now(UTC)
    return tuple(
        ResidentReport(
            name=version.name,
            digest=version.digest,
            served_as=served_as,
            condition=condition,
            since=now,
            reason=reason[:2048] if reason else None,
        )
        for served_as, version, reason in versions
    )


def build_report(
    settings: FollowSettings,
    engine_info: EngineInfo | None,
    base: str | None,
    *,
    seen: int | None,
    names: Iterable[str],
    residents: tuple[ResidentReport, ...] | None,
    dropped: Iterable[DroppedAdapter] = (),
    troubles: Mapping[str, str] | None = None,
) -> WorkerReport:
    """Builds the whole report; `residents` is None if the engine does not answer."""
    version = engine_info.runtime.version if engine_info else None
    listed = sorted((troubles or {}).items())[:_MOST_TROUBLES]
    return WorkerReport(
        worker=settings.name,
        engine=settings.engine,
        version=".".join(map(str, version)) if version else None,
        base=base,
        url=settings.url,
        slots=settings.slots,
        lease=settings.lease,
        seen=seen,
        names=tuple(sorted(names)),
        residents=residents,
        dropped=tuple(dropped),
        troubles=tuple(WorkerProblem(served_as=name, reason=reason[:2048]) for name, reason in listed),
    )


def _adapter_of_name(served_as: str) -> AdapterName | None:
    """The adapter of a name that another loaded, such as vLLM's resolver (`acme/tone@prod@sha256:…`)."""
    try:
        return AdapterName.parse(served_as.partition("@")[0])
    except InvalidRef:
        return None
