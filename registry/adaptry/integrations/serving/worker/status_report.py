"""Builds a worker's status report: the versions that its engine has loaded, will load, and failed to
serve.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.engines import EngineAdapter
from adaptry.integrations.serving.worker.backoff import ServedVersion
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import (
    MAX_PROBLEMS,
    MAX_RESIDENTS,
    Condition,
    DroppedAdapter,
    ResidentReport,
    WorkerProblem,
    WorkerReport,
)

_MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """A worker's own data in a report: its name, the kind of engine, the maximum number of loaded adapters
    (`slots`), the seconds for which a report is valid (`lease`), the engine's address, and the seconds for
    which it serves last known versions without the registry (`max_age`)."""

    name: str
    engine: str
    slots: int | None = None
    lease: int = 60
    url: str | None = None
    max_age: int | None = None


def loaded_residents(
    loaded: Sequence[EngineAdapter],
    names: Mapping[str, AdapterName],
    served_since: dict[ServedVersion, datetime],
    last_use: Callable[[str], float | None],
    withdrawn: Mapping[Digest, object],
) -> tuple[ResidentReport, ...]:
    """A resident for each loaded adapter whose name in the registry is known. `served_since` gets entries for
    the new ones; `last_use` returns when a name was last used (Unix time), if that is known."""
    now = datetime.now(UTC)
    found: list[ResidentReport] = []
    for one in loaded:
        name = names.get(one.name) or _adapter_of_name(one.name)
        if one.digest is None or name is None:
            continue
        used = last_use(one.name)
        condition: Condition = "draining" if one.digest in withdrawn else "serving"
        found.append(
            ResidentReport(
                name=name,
                digest=one.digest,
                served_as=one.name[:_MAX_NAME],
                condition=condition,
                since=served_since.setdefault((one.name, one.digest), now),
                last_used=datetime.fromtimestamp(used, UTC) if used is not None else None,
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
    worker: WorkerIdentity,
    version: str | None,
    base: str | None,
    *,
    base_id: Digest | None = None,
    last_event: int | None,
    names: Iterable[str],
    residents: tuple[ResidentReport, ...] | None,
    dropped: Iterable[DroppedAdapter] = (),
    problems: Mapping[str, str] | None = None,
) -> WorkerReport:
    """Builds the whole report. `version` and `base` are the engine's, and `base_id` identifies the base;
    `residents` is None if the engine does not answer; `problems` are in order, most serious first."""
    return WorkerReport(
        worker=worker.name,
        engine=worker.engine,
        version=version,
        base=base,
        base_id=base_id,
        url=worker.url,
        slots=worker.slots,
        lease=worker.lease,
        max_age=worker.max_age,
        last_event=last_event,
        names=tuple(sorted(name for name in names if len(name) <= _MAX_NAME)[:MAX_RESIDENTS]),
        residents=residents,
        dropped=tuple(dropped),
        problems=_most_serious(problems or {}),
    )


def _most_serious(problems: Mapping[str, str]) -> tuple[WorkerProblem, ...]:
    """As many of the `problems`, most serious first, as fit in a report; the last entry has the number of
    problems that were left out."""
    found = tuple(
        WorkerProblem(served_as=name[:_MAX_NAME], reason=reason[:2048])
        for name, reason in itertools.islice(problems.items(), MAX_PROBLEMS)
    )
    if len(problems) <= MAX_PROBLEMS:
        return found
    left_out = len(problems) - MAX_PROBLEMS + 1
    reason = f"a report has room for {MAX_PROBLEMS} problems, the most serious first; see this worker's log"
    return (*found[:-1], WorkerProblem(served_as=f"({left_out} other names)", reason=reason))


def _adapter_of_name(served_as: str) -> AdapterName | None:
    """The adapter of a name that others loaded, such as vLLM's resolver (`acme/tone@prod@sha256:…`)."""
    try:
        return AdapterName.parse(served_as.partition("@")[0])
    except InvalidRef:
        return None
