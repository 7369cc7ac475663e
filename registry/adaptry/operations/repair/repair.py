"""Repairs what `verify` found (`adaptry repair`): replaces damaged data from a source, or sets it aside.

Every step can be repeated, and a run can continue after any interruption: a file that was set aside counts as
missing, and storing it again is an ordinary upload, with the same guarantees beside concurrent sweeps and
pushes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from adaptry.adapters.content import StreamedContent
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, NotFound, PermissionDenied
from adaptry.core.failpoints import reach
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.repair.derived_rows import rebuild_rows
from adaptry.operations.repair.plan import RegistryRepairPlan, RegistryRepairStep, plan_repair
from adaptry.operations.repair.sources import (
    DamagedFile,
    FileLocation,
    LocalSource,
    RepairSource,
    open_source,
)
from adaptry.operations.transfer import upload
from adaptry.registry.records import Value
from adaptry.storage.blobs.tiered import TieredBlobs
from adaptry.storage.catalog import rebuild, scan
from adaptry.storage.catalog.audit import IntegrityProblem
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity.verification import verify

_ROUNDS = 4  # manifests determine where files belong, and derived rows depend on both


class RepairResult(Value):
    """The result of a repair: a sentence for each action, and the remaining problems."""

    done: tuple[str, ...]
    set_aside: tuple[str, ...]
    left: tuple[str, ...]
    is_dry: bool = False


@dataclass(frozen=True, slots=True)
class _RepairInputs:
    """The context of every repair step: the registry, sources of intact copies, and damaged files by
    digest.
    """

    registry: LocalRegistry
    sources: Sequence[RepairSource]
    damaged_files: Mapping[Digest, DamagedFile]
    owners: Mapping[Digest, tuple[AdapterName, ...]]


def repair_registry(
    registry: LocalRegistry,
    *,
    sources: Sequence[str] = (),
    read_bytes: bool = False,
    dry_run: bool = False,
    show: Callable[[RegistryRepairPlan], object] = lambda _: None,
    progress: Progress = no_progress,
) -> RepairResult:
    """Verifies, plans, shows the plan, executes it. `sources`: registries, bundles, folders (`open_source`).

    Without `read_bytes`, only files that are known to be damaged, missing or of the wrong size are repaired.
    The result has the problems that could not be repaired. Raises `PermissionDenied` unless the caller is an
    administrator, and the errors of `open_source`.
    """
    if not registry.identity.may_administer:
        raise PermissionDenied(
            f"{registry.identity.name} may not repair the registry; only an administrator of all"
            " namespaces may"
        )
    done: list[str] = []
    aside: list[str] = []
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        opened = [open_source(where, stack) for where in sources]
        for round_ in range(_ROUNDS):
            problems = verify(
                registry.catalog,
                registry.blobs,
                read_bytes=read_bytes and not round_,
                note=not dry_run,
                progress=progress,
            )
            inputs = _gather_inputs(registry, opened, problems)
            # The lambda is called before the loop continues.
            plan = plan_repair(problems, lambda problem: _source_of(inputs, problem))  # noqa: B023
            if not round_:
                show(plan)
            if dry_run:
                return RepairResult(done=tuple(map(str, plan.steps)), set_aside=(), left=(), is_dry=True)
            failed.clear()
            before = len(done)
            for step in plan.steps:
                if step.how == "leave":
                    continue
                try:
                    (aside if step.how == "set aside" else done).extend(_run_step(inputs, step, progress))
                except AdaptryError as error:
                    failed[step.key] = error.message
            if len(done) == before:
                break
    left = verify(registry.catalog, registry.blobs, read_bytes=False)
    return RepairResult(
        done=tuple(done),
        set_aside=tuple(dict.fromkeys(aside)),
        left=tuple(f"{one.where}: {one.reason}{_failure_note(failed.get(one.key))}" for one in left),
    )


def _failure_note(reason: str | None) -> str:
    return f" (repair failed: {reason})" if reason else ""


def _gather_inputs(
    registry: LocalRegistry, opened: Sequence[RepairSource], problems: Sequence[IntegrityProblem]
) -> _RepairInputs:
    damaged = {Digest(one.key) for one in problems if one.kind == "file"}
    manifests = {Digest(one.key) for one in problems if one.kind == "manifest"}
    sizes = scan.referenced_files(registry.catalog)
    places: dict[Digest, list[FileLocation]] = defaultdict(list)
    for digest, owner, revision, path in rebuild.iter_owned_copies(registry.catalog, damaged):
        places[digest].append(FileLocation(owner, revision, path))
    damaged_files = {
        digest: DamagedFile(digest, sizes[digest], tuple(places[digest]))
        for digest in damaged
        if digest in sizes
    }
    with registry.catalog.read() as tx:
        data = {revision: rebuild.manifest_bytes(tx, revision) for revision in manifests}
        owners = {revision: rebuild.holders(tx, revision) for revision in manifests}
    return _RepairInputs(registry, (LocalSource(registry.blobs, data), *opened), damaged_files, owners)


def _source_of(inputs: _RepairInputs, problem: IntegrityProblem) -> str | None:
    digest = Digest(problem.key)
    for source in inputs.sources:
        if problem.kind == "manifest" and _manifest(inputs, source, digest) is not None:
            return source.name
        if (
            problem.kind == "file"
            and digest in inputs.damaged_files
            and source.find(inputs.damaged_files[digest]) is not None
        ):
            return source.name
    return None


def _run_step(inputs: _RepairInputs, step: RegistryRepairStep, progress: Progress) -> Iterator[str]:
    """Runs one repair step; yields what was done. Raises the step's error."""
    match step.kind:
        case "manifest":
            yield from _replace_manifest(inputs, Digest(step.key))
        case "file":
            yield from _replace_file(inputs, Digest(step.key), progress)
        case "derived" | "outdated":
            if step.key.startswith("copy:") and isinstance(inputs.registry.blobs, TieredBlobs):
                inputs.registry.blobs.drop_damaged_copy(Digest(step.key.removeprefix("copy:")))
            else:
                rebuild_rows(inputs.registry, step.key)
            reach("repair.after_rebuild")
            yield f"rebuilt derived rows: {step.where}"


def _manifest(inputs: _RepairInputs, source: RepairSource, revision: Digest) -> bytes | None:
    data = source.manifest(revision, inputs.owners.get(revision, ()))
    return data if data is not None and Digest.of(data) == revision else None


def _replace_manifest(inputs: _RepairInputs, revision: Digest) -> Iterator[str]:
    for source in inputs.sources:
        data = _manifest(inputs, source, revision)
        if data is not None:
            with inputs.registry.catalog.write() as tx:
                rebuild.put_manifest(tx, revision, data)
            reach("repair.after_manifest")
            yield f"replaced the manifest of revision {revision.brief} from {source.name}"
            return


def _replace_file(inputs: _RepairInputs, digest: Digest, progress: Progress) -> Iterator[str]:
    """Replaces a file from the first intact source; without one, the damaged copy is only set aside."""
    damaged_file = inputs.damaged_files.get(digest)
    if damaged_file is None or not damaged_file.places:
        return
    inputs.registry.blobs.set_aside(digest)
    reach("repair.after_aside")
    location, failures = damaged_file.places[0], list[str]()
    for source in inputs.sources:
        if source.find(damaged_file) is None:
            continue
        try:
            upload(
                inputs.registry,
                location.owner,
                _SourceContent(source, damaged_file),
                location.path,
                digest,
                progress,
            )
        except AdaptryError as error:
            failures.append(f"{source.name}: {error.message}")
            continue
        reach("repair.after_upload")
        yield f"replaced {location.path} ({digest.brief}) from {source.name}"
        return
    if failures:
        raise NotFound("; ".join(failures))
    yield f"{location.path} ({digest.brief}) of {location.owner}"


class _SourceContent(StreamedContent):
    """A file that a source has, under the name that it has here."""

    def __init__(self, source: RepairSource, damaged_file: DamagedFile) -> None:
        self._source = source
        self._wanted = damaged_file

    @property
    def sizes(self) -> Mapping[str, int]:
        return {location.path: self._wanted.size for location in self._wanted.places}

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        """The bytes from `start` on. Earlier bytes are read and skipped, since resumed uploads are rare."""
        for chunk in self._source.find(self._wanted) or ():
            yield chunk[start:]
            start = max(0, start - len(chunk))
