"""A merge as a job: planned once, its weight files computed by any free runner, then stored as one base.

All steps open the same model from the same inputs and compare its identity, so that files computed on
different machines belong to one model. The bytes of a file are stored directly. They become visible when the
last step registers the base, in one transaction.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from adaptry.adapters.header import BASE_LIMITS, DTYPE_BITS, ReadAt, read_header
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint, build_checkpoint, read_config
from adaptry.bases.quantised import open_logical_view
from adaptry.checks.finding_text import format_count, verb_form
from adaptry.compute.merging.cancellation import check_cancellation
from adaptry.compute.merging.kernels import choose_kernels, compute_on_one_thread
from adaptry.compute.merging.layout import OutputFile
from adaptry.compute.merging.merge import MergeSource, check_inputs, plan_recipe
from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.merging.record import RECORD_FILE as RECORD
from adaptry.compute.merging.record import build_merge_record
from adaptry.compute.merging.rounding_loss import ChangedElements, count_changed
from adaptry.compute.merging.streaming.virtual_checkpoint import VirtualCheckpoint
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict
from adaptry.core.failpoints import reach
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.core.refs import Ref, split_weight
from adaptry.core.settings import data_folder
from adaptry.jobs.context import JobContext
from adaptry.jobs.ipc import ShardStep, StepResult
from adaptry.operations.base_registry import open_base
from adaptry.operations.quantised_variants import open_original
from adaptry.registry.job_types.tasks import MergeTask
from adaptry.storage.blobs import BlobStore
from adaptry.storage.local.context import require_all_undamaged

_ONE_PIECE_LIMIT = 4 << 30
"""Size in bytes of the largest result whose files are one piece: computing it takes seconds, and each
additional piece adds 0.2 seconds.
"""
_ALL_FILES = "piece-all"
_PROCESS_OVERHEAD = 1 << 30  # bytes that a process with torch takes before it computes anything
_COPIES = 4  # maximum number of float32 copies of a tensor that is computed as a whole


def start(task: MergeTask, context: JobContext) -> StepResult:
    """Pins the inputs, plans, and returns the pieces: for a small result one piece with all weight files,
    otherwise one piece for each file. Invalid merges fail here.
    """
    pinned = [(str(_pinned(context, text)), weight) for text, weight in map(split_weight, task.inputs)]
    base = context.registry.bases.get(task.base)
    with _open_model(task, context, pinned, str(base.id)) as model:
        check_inputs(model.plan.inputs)  # later steps read the same bytes, by their digests
        for note in model.plan.notes:
            context.log(f"note: {note}")
        if _is_divided(task, context, model.plan):
            pieces = tuple(
                ShardStep(name=f"piece-{number}", size=file.size, memory=_memory(file))
                for number, file in enumerate(model.plan.files, 1)
            )
        else:
            pieces = (ShardStep(name=_ALL_FILES, size=model.plan.size, memory=_PROCESS_OVERHEAD),)
        count = model.plan.adapted_count
        context.log(
            f"{format_count(count, 'weight')} {verb_form(count, 'changes', 'change')};"
            f" {format_count(len(model.plan.files), 'file')},"
            f" {model.plan.size:,} bytes"
        )
        cut = {"inputs": pinned, "base": str(base.id), "model": str(model.merged.identity)}
    reach("merge.planned")
    return StepResult(result=cut, pieces=pieces)


def piece(task: MergeTask, context: JobContext, step: str) -> StepResult:
    """Computes one weight file into the store, or all of them."""
    with _reopen_planned(task, context) as model:
        files = model.plan.files
        if step != _ALL_FILES:
            files = files[int(step.removeprefix("piece-")) - 1 :][:1]
        made = [entry.model_dump(mode="json") for entry in _store_files(context, model, files)]
        tallies = model.merged.tallies
        changed = sum(tally.is_changed for tally in tallies.values())
        elements = count_changed((tensor for file in files for tensor in file.tensors), tallies)
    reach("merge.stored")
    found: dict[str, Any] = {"files": made} if step == _ALL_FILES else made[0]
    return StepResult(result={**found, "changed": changed, "elements": asdict(elements)})


def end(task: MergeTask, context: JobContext) -> StepResult:
    """Stores the side files, then registers the base."""
    with _reopen_planned(task, context) as model:
        made, changed, elements = _computed_files(context, model.plan)
        files = (*made, *_store_side_files(context, model, made, changed, elements))
        with context.registry.catalog.read() as tx:
            require_all_undamaged(tx, {entry.path: entry.sha256 for entry in files})
        with tempfile.TemporaryDirectory(dir=context.scratch) as folder:
            stored = _stored(context.registry.blobs, files, {entry.path for entry in made}, Path(folder))
            known = fingerprint(stored)
        reach("merge.before_adoption")
        info = context.registry.bases.adopt(known, (task.to,), files)
    reach("merge.adopted")
    return StepResult(
        result={
            "base": str(info.id),
            "name": task.to,
            "files": [entry.model_dump(mode="json") for entry in files],
        }
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """An open merge: its request, its plan and its readable inputs."""

    recipe: MergeRecipe
    plan: MergePlan
    revisions: tuple[Digest | None, ...]
    merged: VirtualCheckpoint


@contextmanager
def _reopen_planned(task: MergeTask, context: JobContext) -> Iterator[_Model]:
    """Opens the planned merge. Raises `Conflict` if this machine would compute another result."""
    cut = context.previous_results["start"]
    with _open_model(task, context, cut["inputs"], cut["base"]) as model:
        if str(model.merged.identity) != cut["model"]:
            raise Conflict(
                "the same inputs give different bytes on this runner (computed by"
                f" {', '.join(model.merged.computed_by)}) than on the one that planned the job; run its"
                " steps with one version of torch on one type of processor, or tag such runners and submit"
                " the job with --tag"
            )
        yield model


@contextmanager
def _open_model(task: MergeTask, context: JobContext, pinned: list[Any], base: str) -> Iterator[_Model]:
    """(`Any`: pairs of a ref and a weight, as JSON has them.)"""
    checkpoint = _base(context, base)
    found = ""
    if task.base_copy == "original" and open_logical_view(checkpoint).packed:
        checkpoint, found = open_original(context.registry, checkpoint, context.progress)
    sources = []
    for text, weight in pinned:
        version, adapter, known = context.open_version(Ref.parse(text))
        label = version.label
        sources.append(
            MergeSource(
                WeightedAdapter(adapter, weight, label, known, base_name=version.base_name), version.digest
            )
        )
    plan = check_cancellation(plan_recipe(task.recipe, checkpoint, sources, found))
    kernels = choose_kernels(context.device)
    revisions = tuple(source.revision for source in sources)
    went_in = Digest.of(repr([(str(source.revision), source.weighted.weight) for source in sources]).encode())
    yield _Model(task.recipe, plan, revisions, VirtualCheckpoint(plan, kernels, went_in, {}, context.scratch))


def _base(context: JobContext, key: str) -> HfCheckpoint:
    """The stored files of the base, if it has any: a local copy may be divided into files differently, and
    each step computes one file."""
    is_stored = context.registry.bases.get(key).is_stored
    kept = data_folder() / "cache" / "stored" if is_stored else None
    return open_base(context.registry, key, cache=kept, progress=context.progress)


def _is_divided(task: MergeTask, context: JobContext, plan: MergePlan) -> bool:
    """Whether each weight file is a separate piece: if the result is large, and if torch or a GPU computes
    it, since then several files at once could need too much memory.
    """
    if task.divide or plan.size > _ONE_PIECE_LIMIT or context.device != "cpu":
        return True
    return any(name != "llvm" for name in choose_kernels().names_for(plan.changed_tensors))


def _store_files(context: JobContext, model: _Model, files: Sequence[OutputFile]) -> tuple[FileEntry, ...]:
    """Computes weight files into the store, several at once: one more than there are processors, so that
    none is idle when few files are left. After an error, the others stop at their next chunk.
    """
    kernels = choose_kernels(context.device).names_for(model.plan.changed_tensors)
    progress = _MergeProgress(context, sum(file.size for file in files))

    def store(file: OutputFile) -> FileEntry:
        computed = progress.follow(model.merged.read(file.name, 0, file.size))
        try:
            digest, size = context.registry.bases.store_generated_file(
                _computed_ahead(computed, context, kernels) if is_few else computed
            )
        except BaseException:
            progress.stop()
            raise
        return FileEntry(path=file.name, size=size, sha256=digest)

    processors = context.processors.count
    is_few, threads = len(files) < max(2, processors), min(len(files), processors + 1)
    with ThreadPoolExecutor(threads, initializer=compute_on_one_thread, initargs=(kernels,)) as pool:
        stored = [pool.submit(store, file) for file in files]
        errors = [error for each in stored if (error := each.exception()) is not None]
    for error in errors:
        if not isinstance(error, _OtherThreadFailed):
            raise error
    return tuple(each.result() for each in stored)


def _computed_files(
    context: JobContext, plan: MergePlan
) -> tuple[tuple[FileEntry, ...], int | None, ChangedElements | None]:
    """The weight files that the pieces have stored, the number of changed weights, and the counts of their
    elements; None for values that a piece of an older release did not count.
    """
    results = context.previous_results
    names = [f"piece-{number}" for number in range(1, len(plan.files) + 1)]
    pieces = [dict(results[name]) for name in ([_ALL_FILES] if _ALL_FILES in results else names)]
    changed = [found.pop("changed", None) for found in pieces]
    counts = [found.pop("elements", None) for found in pieces]
    files = [file for found in pieces for file in found.get("files", [found])]
    return (
        tuple(map(FileEntry.model_validate, files)),
        None if None in changed else sum(changed),
        None if None in counts else sum((ChangedElements(**each) for each in counts), ChangedElements()),
    )


def _store_side_files(
    context: JobContext,
    model: _Model,
    made: tuple[FileEntry, ...],
    changed: int | None,
    elements: ChangedElements | None,
) -> Iterator[FileEntry]:
    """Stores the merge record, and all files except the weights."""
    merged = model.merged
    kernels = choose_kernels(context.device).names
    noted = build_merge_record(
        model.recipe, model.plan, made, kernels, model.revisions, changed, elements=elements
    )
    for warning in noted.warnings:
        context.log(f"warning: {warning}")
    texts = {RECORD: [(noted.model_dump_json(indent=2) + "\n").encode()]}
    for name, file in merged.side_files.items():
        texts[name] = [bytes(data) for data in merged.read(name, 0, file.size)]
    for name, chunks in sorted(texts.items()):
        digest, size = context.registry.bases.store_generated_file(chunks)
        yield FileEntry(path=name, size=size, sha256=digest)


@dataclass(frozen=True, slots=True)
class _StoredCheckpoint(HfCheckpoint):
    """A checkpoint whose weights are read from the store; its folder has all other files."""

    blobs: BlobStore
    digests: Mapping[str, Digest]

    @contextmanager
    def open_shard(self, shard: str) -> Iterator[ReadAt]:
        digest = self.digests[shard]
        yield lambda offset, length: self.blobs.read(digest, offset, length)


def _stored(blobs: BlobStore, files: tuple[FileEntry, ...], weights: set[str], folder: Path) -> HfCheckpoint:
    """Registers the stored files as a base. They are read back, so that the record matches the store."""
    digests = {entry.path: entry.sha256 for entry in files}
    for name in digests.keys() - weights:
        (folder / name).write_bytes(b"".join(blobs.chunks(digests[name])))

    def header_of(name: str) -> Any:
        digest = digests[name]
        return read_header(
            lambda at, length: blobs.read(digest, at, length), blobs.size(digest), name, BASE_LIMITS
        )

    plain = build_checkpoint(folder, read_config(folder), {name: header_of(name) for name in sorted(weights)})
    return _StoredCheckpoint(
        plain.folder, plain.config, plain.shards, plain.tensors, plain.shard_of, plain.states, blobs, digests
    )


class _OtherThreadFailed(Exception):
    """Raised in a thread if another thread of the merge failed."""


class _MergeProgress:
    """Reports how many of `size` bytes several threads have computed, until one of them stops all."""

    def __init__(self, context: JobContext, size: int) -> None:
        self._context = context
        self._size = size
        self._done = 0
        self._lock = Lock()
        self._is_stopped = False

    def follow(self, computed: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """Yields the chunks of one file unchanged. Raises `_OtherThreadFailed`."""
        for data in computed:
            yield data
            with self._lock:
                if self._is_stopped:
                    raise _OtherThreadFailed
                self._done += len(data)
                self._context.progress("merging", self._done, self._size)

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True


def _computed_ahead(
    computed: Iterator[bytes | memoryview], context: JobContext, kernels: tuple[str, ...]
) -> Iterator[bytes | memoryview]:
    """Yields the chunks unchanged. As long as the step may use a second processor, it computes each chunk
    while the caller stores and hashes the previous one.
    """
    with ThreadPoolExecutor(1, initializer=compute_on_one_thread, initargs=(kernels,)) as pool:
        upcoming: Future[bytes | memoryview | None] | None = None
        while (data := upcoming.result() if upcoming else next(computed, None)) is not None:
            upcoming = None
            if context.processors.count > 1:
                data = bytes(data)  # the next piece is computed in the same memory
                upcoming = pool.submit(next, computed, None)
            yield data


def _pinned(context: JobContext, text: str) -> Ref:
    """Pins a ref to a digest. Raises `NotFound`, `Withdrawn`."""
    version = context.registry.versions.get(Ref.parse(text))
    return version.revision_ref


def _memory(file: OutputFile) -> int:
    """The peak memory of computing a file: row blocks, except for tensors that are computed whole."""
    whole = max((piece.numel for piece in file.tensors if piece.is_whole), default=0)
    return _PROCESS_OVERHEAD + whole * _COPIES * DTYPE_BITS["F32"] // 8
