"""Writes a version snapshot into a registry: first the files, then the version, then metrics and state.

Every step checks what exists and adds only what is missing, so an interrupted run can be repeated, and two
runs at once do no harm. Content is verified by the receiving registry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.content import Content
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, InvalidRef, NotFound, PermissionDenied
from adaptry.core.identity import BaseVisibility
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import WITHDRAWN, State
from adaptry.core.manifest import FileEntry, Manifest
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.mirror.snapshot import MetricValue, VersionSnapshot
from adaptry.operations.promotion import current_alias
from adaptry.operations.transfer.file_upload import upload
from adaptry.operations.transfer.files import upload_missing
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.registry.adapters import Adapters
from adaptry.registry.aliases import Aliases
from adaptry.registry.base_info import BaseEdit, BaseInfo
from adaptry.registry.bases import Bases
from adaptry.registry.interface import Registry
from adaptry.registry.metrics import Metrics
from adaptry.registry.records import AdapterEdit, MetricInfo, PushOptions, StateChange, VersionInfo
from adaptry.registry.versions import Versions

MIRRORED = "mirrored"
"""The tag of adapters that a mirror created, and the prefix of the reasons of states that it set."""
_MARK = f"{MIRRORED}: "
_STATES: tuple[State, ...] = ("active", "deprecated", "yanked", "quarantined", "revoked")


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """The version in the destination. `is_change` is False if nothing had to be changed."""

    version: VersionInfo
    is_change: bool


def apply_snapshot(
    registry: Registry,
    snapshot: VersionSnapshot,
    manifest: Manifest,
    content: Content,
    *,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> ApplyResult:
    """Creates or updates the version here, under its name and, if free, its number, with metrics and state.

    A missing adapter is created, private, with description and tags. Raises the errors of a push
    (`CheckFailed` among them), and `CheckFailed` if the source has forgotten a recall
    (`has_forgotten_recall`): then the version stays withdrawn here.
    """
    name, ref = snapshot.name, Ref.of_revision(snapshot.name, snapshot.digest)
    version = _version_or_none(registry.versions, ref)
    is_new = version is None
    if version is None:
        _make_adapter(registry.adapters, name, snapshot)
        upload_missing(registry, name, content, manifest, progress, retry)
        options = PushOptions(number=snapshot.number, force_reason=snapshot.forced)
        version = registry.versions.put(name, manifest.to_bytes(), options).version
        version = _bind_as_source(registry.versions, version, snapshot)
    logged = copy_missing_metrics(registry.metrics, ref, snapshot.metrics)
    if has_forgotten_recall(version, snapshot):
        raise CheckFailed(
            f"{name}@{version.number} stays {version.state} here: the source revoked or quarantined it"
            f" earlier and now shows it as {snapshot.state}, without a later decision. This happens after a"
            " restore from an older backup. Revoke it again at the source; or, if the recall was withdrawn,"
            f" run: adaptry restore {name}@{version.number} --reason TEXT, in this registry"
        )
    change = plan_state_change(version, snapshot)
    if change is not None:
        version = _change_state(registry.versions, version, snapshot, change)
    return ApplyResult(version, is_new or bool(logged) or change is not None)


def _bind_as_source(versions: Versions, version: VersionInfo, snapshot: VersionSnapshot) -> VersionInfo:
    """Binds a new version to the base that the source checked it against, if its manifest does not name that
    base.

    If the base is not here, or another one has its name, the version's base stays only declared.
    """
    if snapshot.base_id is None or version.base_status == "verified":
        return version
    try:
        return versions.bind_base(version.name, version.digest, snapshot.base_id).version
    except (NotFound, Conflict, CheckFailed, PermissionDenied):
        return version


def apply_base(
    registry: Registry,
    record: BaseRecord,
    names: Sequence[str],
    files: Sequence[FileEntry],
    content: Content | None,
    visibility: BaseVisibility = "private",
) -> bool:
    """Registers a base here, under those of its names that are free, with its weights if `content` has them.

    A new base becomes internal if its `visibility` at the source is wider than private; a known one keeps its
    visibility. Returns whether anything changed. Raises `PermissionDenied` if the caller may not change
    bases.
    """
    known = _base_or_none(registry.bases, record.id)
    free = tuple(
        name
        for name in names
        if _base_or_none(registry.bases, name) is None and not _is_adapter(registry.adapters, name)
    )
    has_weights = known is not None and known.is_stored
    if known is None or free:
        registry.bases.put(record, free)
    if known is None and visibility != "private":
        registry.bases.edit(record.id, BaseEdit(visibility="internal"))
    if content is not None and files and not has_weights:
        for entry in files:
            if not registry.files.has(record.id, entry.sha256):
                upload(registry, record.id, content, entry.path, entry.sha256)
        registry.bases.store(record.id, tuple(files))
        return True
    return known is None or bool(free)


def copy_missing_metrics(metrics: Metrics, ref: Ref, wanted: Iterable[MetricValue]) -> int:
    """Logs the values that are missing here, in their order. Returns how many.

    A metric that has other values logged here is skipped, since the order of the two series is unknown.
    """
    rounds: list[dict[str, float]] = []
    for metric, missing in missing_metrics(metrics.list(ref), wanted).items():
        for number, value in enumerate(missing):
            if number == len(rounds):
                rounds.append({})
            rounds[number][metric] = value
    for values in rounds:
        items = list(values.items())
        for at in range(0, len(items), 64):
            metrics.log(ref, dict(items[at : at + 64]))
    return sum(map(len, rounds))


def missing_metrics(local: Iterable[MetricInfo], source: Iterable[MetricValue]) -> Mapping[str, list[float]]:
    """The values of each metric that follow the values both registries have. A metric whose existing values
    differ is skipped.
    """
    have: dict[str, list[float]] = defaultdict(list)
    for one in local:
        have[one.metric].append(one.value)
    want: dict[str, list[float]] = defaultdict(list)
    for metric, value in source:
        want[metric].append(value)
    return {
        metric: values[len(have[metric]) :]
        for metric, values in want.items()
        if values[: len(have[metric])] == have[metric] and len(values) > len(have[metric])
    }


def _change_state(
    versions: Versions, here: VersionInfo, there: VersionSnapshot, change: StateChange
) -> VersionInfo:
    try:
        return versions.set_state(here.name, here.digest, change, here.state_generation)
    except (NotFound, Conflict):
        if change.successor is None:
            raise
    # The successor is missing or refused here, so the reason names it instead.
    reason = _marked_reason(f"{there.reason} (take {there.successor} instead)")
    alone = StateChange(state=change.state, reason=reason)
    return versions.set_state(here.name, here.digest, alone, here.state_generation)


def has_forgotten_recall(local: VersionInfo, source: VersionSnapshot) -> bool:
    """Whether following the source would lift a version's recall without a later decision there; a pure
    function.

    A source that was restored from a backup older than the recall looks like this, and so does a bundle.
    Compares the clocks of both registries: if they disagree by more than the time between recall and
    decision, the recall stays in force, which is the safe choice.
    """
    if (
        local.state not in WITHDRAWN
        or local.last_state_change is None
        or not local.last_state_change.reason.startswith(_MARK)
    ):
        return False
    if _STATES.index(source.state) >= _STATES.index(local.state):
        return False
    return source.decided_at is None or source.decided_at < local.last_state_change.at


def plan_state_change(local: VersionInfo, source: VersionSnapshot) -> StateChange | None:
    """The state change to make here, or None; a pure function. A decision made here stays, unless the
    source's decision is stricter; so does a recall that the source has forgotten.
    """
    if has_forgotten_recall(local, source):
        return None
    current = local.last_state_change.reason if local.last_state_change else ""
    is_ours = local.state == "active" or current.startswith(_MARK)
    if source.state == "active":
        if local.state == "active" or not is_ours:
            return None
        return StateChange(state="active", reason=_marked_reason("it is active again"))
    if local.state == source.state and (
        not is_ours or current.startswith(_marked_reason(source.reason or "no reason given"))
    ):
        return None
    if not is_ours and _STATES.index(source.state) <= _STATES.index(local.state):
        return None
    return StateChange(
        state=source.state,
        reason=_marked_reason(source.reason or "no reason given"),
        successor=source.successor,
    )


def point_aliases(aliases: Aliases, snapshot: VersionSnapshot) -> int:
    """Points the snapshot's aliases at its version here. Returns how many moved."""
    moved = 0
    for alias in snapshot.aliases:
        found = current_alias(aliases, snapshot.name, alias)
        if found is None or found.digest != snapshot.digest:
            aliases.move(snapshot.name, alias, snapshot.digest, found.generation if found else None)
            moved += 1
    return moved


def _marked_reason(reason: str) -> str:
    return f"{_MARK}{reason}"[:1024]


def _make_adapter(adapters: Adapters, name: AdapterName, snapshot: VersionSnapshot) -> None:
    if _exists(adapters, name):
        return
    tags = tuple(dict.fromkeys((*snapshot.tags[:63], MIRRORED)))
    try:
        adapters.create(name, AdapterEdit(description=snapshot.description, tags=tags))
    except Conflict:
        if not _exists(adapters, name):  # otherwise another run has created it
            raise


def _exists(adapters: Adapters, name: AdapterName) -> bool:
    try:
        adapters.get(name)
    except NotFound:
        return False
    return True


def _is_adapter(adapters: Adapters, name: str) -> bool:
    try:
        return _exists(adapters, AdapterName.parse(name))
    except InvalidRef:
        return False


def _version_or_none(versions: Versions, ref: Ref) -> VersionInfo | None:
    try:
        return versions.get(ref)
    except NotFound:
        return None


def _base_or_none(bases: Bases, key: Digest | str) -> BaseInfo | None:
    try:
        return bases.get(str(key))
    except NotFound:
        return None
