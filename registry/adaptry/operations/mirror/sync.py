"""Syncs a registry with another: copies what is missing and updates what has changed at the source.

A run may be interrupted anywhere and repeated: each action is atomic, and existing content is not sent again.
An action that is refused is logged and skipped; a registry that does not answer ends the run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import field

from adaptry.adapters.content import StreamedContent
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, PermissionDenied
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.mirror.actions import MirrorFailure, MirrorLog, MirrorResult
from adaptry.operations.mirror.apply import apply_base, apply_snapshot, point_aliases
from adaptry.operations.mirror.evidence import copy_evidence
from adaptry.operations.mirror.plan import MirrorPlan, MirrorSelection, mirrored_adapters, plan_mirror
from adaptry.operations.mirror.snapshot import VersionSnapshot, take_snapshot
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.registry.adapters import Adapters
from adaptry.registry.base_info import BaseInfo
from adaptry.registry.interface import Registry
from adaptry.registry.records import Event, VersionInfo

_LONG_POLL_SECONDS = 25.0
_MAX_NAMES = 100
"""Up to this many changed adapters are compared one by one; if more have changed, everything is compared."""


def sync_once(
    source: Registry,
    destination: Registry,
    selection: MirrorSelection,
    *,
    only: Collection[AdapterName] | None = None,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> MirrorResult:
    """Syncs once; only the adapters `only`, if given. Raises `Unavailable` if either registry does not
    answer, and the errors of `plan_mirror`; `CheckFailed` if every mirrored adapter would be deleted, because
    a token that has lost its rights looks the same as an empty source.
    """
    return apply_plan(
        source, destination, plan_mirror(source, destination, selection, only), selection, progress, retry
    )


def sync_continuously(
    source: Registry,
    destination: Registry,
    selection: MirrorSelection,
    *,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
    wait: float = _LONG_POLL_SECONDS,
) -> Iterator[MirrorResult]:
    """Syncs everything, then the changed adapters whenever the source has new events. Yields each result, at
    least once every `wait` seconds. Raises the errors of `sync_once`; a new call then starts with a full sync
    again.
    """
    begin = source.events.read()
    seen, epoch = begin.seq, begin.epoch
    yield sync_once(source, destination, selection, progress=progress, retry=retry)
    while True:
        news = source.events.read(seen, 200, wait)
        was_restored = news.seq < seen or news.epoch != epoch
        seen, epoch = news.seq, news.epoch
        names = {name for event in news.items for name in _names(event)}
        only = None if was_restored or len(names) > _MAX_NAMES else names
        if only is None or only:
            yield sync_once(source, destination, selection, only=only, progress=progress, retry=retry)
        else:
            yield MirrorResult()


def apply_plan(
    source: Registry,
    destination: Registry,
    plan: MirrorPlan,
    selection: MirrorSelection,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> MirrorResult:
    """Carries out the plan in the order of dependencies: bases, versions, aliases, deletions."""
    log = MirrorLog()
    copier = _VersionCopier(source, destination, selection, log, progress, retry)
    for version in plan.copy:
        with log.record(_version_label(version), log.copied) as action:
            action.is_change = copier.copy(version)
    for version in plan.update:
        with log.record(_version_label(version), log.updated) as action:
            action.is_change = copier.copy(version)
    for name, alias in plan.point:
        with log.record(f"{name}@{alias.alias}", log.pointed) as action:
            snapshot = VersionSnapshot(
                name=name, number=alias.number, digest=alias.digest, aliases=(alias.alias,)
            )
            action.is_change = bool(point_aliases(destination.aliases, snapshot))
    gone = tuple(map(str, plan.delete))
    if selection.delete:
        _require_some_left(destination.adapters, plan)
        for name in plan.delete:
            with log.record(str(name), log.deleted):
                _delete(destination, name)
    return log.result(
        gone=() if selection.delete else gone, withheld=tuple(map(_version_label, plan.withheld))
    )


@dataclass
class _VersionCopier:
    """Copies versions in one run; remembers the bases it has handled."""

    source: Registry
    destination: Registry
    selection: MirrorSelection
    log: MirrorLog
    progress: Progress
    retry: RetryPolicy
    seen_bases: set[Digest] = field(default_factory=set)

    def copy(self, version: VersionInfo) -> bool:
        """Copies or updates a version. Returns whether anything changed."""
        snapshot, manifest = take_snapshot(self.source, version)
        if snapshot.base_id is not None:
            self._copy_base(snapshot.base_id)
        content = RevisionContent(self.source, version, manifest)
        applied = apply_snapshot(
            self.destination, snapshot, manifest, content, progress=self.progress, retry=self.retry
        )
        has_evidence = copy_evidence(
            self.source, self.destination, version, progress=self.progress, retry=self.retry
        )
        return applied.is_change or has_evidence

    def _copy_base(self, id: Digest) -> None:
        """Copies a base once per run. Without the right to register it, the base of its adapters stays only
        declared.
        """
        if not self.selection.bases or id in self.seen_bases:
            return
        self.seen_bases.add(id)
        info = self.source.bases.get(str(id))
        stored = info.stored if self.selection.base_files else ()
        content = BaseContent(self.source, info) if stored else None
        try:
            is_change = apply_base(
                self.destination, self.source.bases.record(id), info.names, stored, content, info.visibility
            )
        except PermissionDenied as error:
            self.log.failures.append(MirrorFailure(what=f"base {id.brief}", reason=error.message))
        else:
            if is_change:
                self.log.bases.append(id)


class BaseContent(StreamedContent):
    """The stored files of a base, read from its registry."""

    def __init__(self, registry: Registry, info: BaseInfo) -> None:
        self._registry = registry
        self._info = info

    @property
    def sizes(self) -> Mapping[str, int]:
        return {entry.path: entry.size for entry in self._info.stored}

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        return self._registry.bases.read_file(self._info.id, path, start)


def _names(event: Event) -> Iterator[AdapterName]:
    """The adapters that an event is about; for a rename, the old name too."""
    if event.name is not None:
        yield event.name
    if "was" in event.detail and event.kind == "adapter.renamed":
        yield AdapterName.parse(event.detail["was"])


def _require_some_left(destination_adapters: Adapters, plan: MirrorPlan) -> None:
    if plan.delete and set(plan.delete) == mirrored_adapters(destination_adapters):
        raise CheckFailed(
            "the source no longer shows any of the mirrored adapters. Either they were deleted, or the"
            " token lost its rights, so nothing was deleted here; check the source, and if they are gone"
            " for good, delete them here: adaptry delete NAME"
        )


def _delete(destination: Registry, name: AdapterName) -> None:
    for alias in destination.aliases.list(name):
        destination.aliases.remove(name, alias.alias, alias.generation)
    destination.adapters.delete(name)


def _version_label(version: VersionInfo) -> str:
    return version.label
