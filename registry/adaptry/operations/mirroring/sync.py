"""Making one registry follow another: what it lacks is copied, what changed there changes here.

One call is one round. It may be broken off anywhere and begun again: each step is whole, and what is there is not sent twice.
A step that is refused is told and passed over; a registry that cannot be reached ends the round.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from adaptry.adapters.content import StreamedContent
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, PermissionDenied
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.mirroring.actions import MirrorFailure, MirrorLog, MirrorResult
from adaptry.operations.mirroring.apply import apply_base, apply_snapshot, point_aliases
from adaptry.operations.mirroring.plan import MirrorPlan, MirrorSelection, mirrored_adapters, plan_mirror
from adaptry.operations.mirroring.snapshot import VersionSnapshot, take_snapshot
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.registry.interface import Registry
from adaptry.registry.records import BaseInfo, Event, VersionInfo

_WAIT = 25.0
_MOST_NAMES = 100
"""Adapters that are looked at one by one; of more, everything is."""


def sync_once(
    source: Registry,
    destination: Registry,
    selection: MirrorSelection,
    *,
    only: Collection[AdapterName] | None = None,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> MirrorResult:
    """One round; of these adapters `only`, if some are given. Raises `Unavailable` where either registry does not answer, and as `plan`; `CheckFailed` where everything that was ever
    mirrored would be deleted: whoever may read nothing there sees the same as where nothing is."""
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
    wait: float = _WAIT,
) -> Iterator[MirrorResult]:
    """A whole round, then one of what changed whenever something did; each is given when it is done, and once in `wait` seconds at
    least. Raises as `follow`, after which a new one begins with a whole round again."""
    begin = source.events()
    seen, epoch = begin.seq, begin.epoch
    yield sync_once(source, destination, selection, progress=progress, retry=retry)
    while True:
        news = source.events(seen, 200, wait)
        was_set_back = news.seq < seen or news.epoch != epoch
        seen, epoch = news.seq, news.epoch
        names = {name for event in news.items for name in _names(event)}
        only = None if was_set_back or len(names) > _MOST_NAMES else names
        if only is None or only:
            yield sync_once(source, destination, selection, only=only, progress=progress, retry=retry)
        else:
            yield MirrorResult()


def apply_plan(
    source: Registry,
    destination: Registry,
    decided: MirrorPlan,
    selection: MirrorSelection,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> MirrorResult:
    """Does what was planned, in an order in which what is needed comes first: bases, versions, aliases, ends."""
    steps = MirrorLog()
    copier = _VersionCopier(source, destination, selection, steps, progress, retry)
    for version in decided.copy:
        with steps.record(_version_label(version), steps.copied) as step:
            step.is_change = copier.copy(version)
    for version in decided.update:
        with steps.record(_version_label(version), steps.updated) as step:
            step.is_change = copier.copy(version)
    for name, alias in decided.point:
        with steps.record(f"{name}@{alias.alias}", steps.pointed) as step:
            snapshot = VersionSnapshot(
                name=name, number=alias.number, digest=alias.digest, aliases=(alias.alias,)
            )
            step.is_change = bool(point_aliases(destination, snapshot))
    gone = tuple(map(str, decided.delete))
    if selection.delete:
        _require_some_left(destination, decided)
        for name in decided.delete:
            with steps.record(str(name), steps.deleted):
                _delete(destination, name)
    return steps.result(
        gone=() if selection.delete else gone, withheld=tuple(map(_version_label, decided.withheld))
    )


@dataclass
class _VersionCopier:
    """Versions brought in one round, and the bases that were looked at for them."""

    source: Registry
    destination: Registry
    selection: MirrorSelection
    log: MirrorLog
    progress: Progress
    retry: RetryPolicy
    seen_bases: set[Digest] = field(default_factory=set)

    def copy(self, version: VersionInfo) -> bool:
        """Whether anything is other here than before."""
        snapshot, manifest = take_snapshot(self.source, version)
        if snapshot.base_id is not None:
            self._copy_base(snapshot.base_id)
        content = RevisionContent(self.source, version, manifest)
        return apply_snapshot(
            self.destination, snapshot, manifest, content, progress=self.progress, retry=self.persistence
        ).is_change

    def _copy_base(self, id: Digest) -> None:
        """A base that may not be changed here is done without: its adapters are then declared, not verified."""
        if not self.choice.bases or id in self.seen_bases:
            return
        self.seen_bases.add(id)
        info = self.source.base(str(id))
        stored = info.stored if self.choice.base_files else ()
        content = BaseContent(self.source, info) if stored else None
        try:
            is_change = apply_base(
                self.destination, self.source.base_record(id), info.names, stored, content, info.visibility
            )
        except PermissionDenied as error:
            self.log.failures.append(MirrorFailure(what=f"base {id.brief}", reason=error.message))
        else:
            if is_change:
                self.log.bases.append(id)


class BaseContent(StreamedContent):
    """The stored files of a base where they are."""

    def __init__(self, registry: Registry, info: BaseInfo) -> None:
        self._registry = registry
        self._info = info

    @property
    def sizes(self) -> Mapping[str, int]:
        return {entry.path: entry.size for entry in self._info.stored}

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        return self._registry.read_base_file(self._info.id, path, start)


def _names(event: Event) -> Iterator[AdapterName]:
    """The adapters that something happened to; one that was renamed is gone under its old name."""
    if event.name is not None:
        yield event.name
    if "was" in event.detail and event.kind == "adapter.renamed":
        yield AdapterName.parse(event.detail["was"])


def _require_some_left(destination: Registry, decided: MirrorPlan) -> None:
    if decided.delete and set(decided.delete) == mirrored_adapters(destination):
        raise CheckFailed(
            "the source shows none of the adapters that were mirrored, as it also would to a token that lost its rights: "
            "nothing was deleted; look at the source, and delete them here by name if they are gone for good"
        )


def _delete(destination: Registry, name: AdapterName) -> None:
    for alias in destination.aliases(name):
        destination.remove_alias(name, alias.alias, alias.generation)
    destination.delete_adapter(name)


def _version_label(version: VersionInfo) -> str:
    return f"{version.name}@{version.number}"
