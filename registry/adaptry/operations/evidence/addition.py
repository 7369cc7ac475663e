"""Adds results files to a version as evidence: reads all of them, then uploads and adds one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from adaptry.adapters.content import Content, FolderContent
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Invalid, NotFound
from adaptry.core.evidence import lm_eval
from adaptry.core.evidence.detection import read_results
from adaptry.core.evidence.parsed_results import MAX_FILE
from adaptry.core.evidence.values import EvidenceFile
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import Ref
from adaptry.operations.result_files import ResultFiles, find_result_files, group_by_run
from adaptry.operations.transfer.file_upload import upload
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.registry.evidence import EvidenceAddition
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo

MAX_SAMPLES = 1 << 30
"""Bytes of a samples file."""


@dataclass(frozen=True, slots=True)
class PreparedEvidence:
    """A results file that was read: its content, the positions of its stored files, and its values."""

    content: Content
    stored: dict[str, Digest]
    file: EvidenceFile
    revision: str


def add_evidence(
    registry: Registry,
    ref: Ref,
    paths: Sequence[Path],
    *,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> tuple[EvidenceAddition, ...]:
    """Adds results files, and those in folders, as evidence of the version that `ref` means now.

    All files are read before the first is sent. Raises `NotFound`, `Invalid` for a file that cannot be read,
    `Conflict` for one that states another revision, and the errors of `upload` and `evidence.add`.
    """
    version = registry.versions.get(ref)
    prepared = [prepare_evidence(files) for files in group_by_run(_expanded(paths))]
    for one in prepared:
        _require_revision(one, version)
    return tuple(_send(registry, version, one, progress, retry) for one in prepared)


def prepare_evidence(files: ResultFiles) -> PreparedEvidence:
    """Reads a results file, and checks its samples files. Raises `NotFound`, `Invalid`."""
    names: dict[str, str | None] = {path.name: task for task, path in files.samples.items()}
    names[files.results.name] = None
    content = FolderContent(files.results.parent, list(names))
    data = content.read_all(files.results.name, MAX_FILE)
    stored = {files.results.name: Digest.of(data)}
    samples: dict[str, Digest] = {}
    for name, task in names.items():
        if task is not None:
            stored[name] = samples[task] = _checked_samples(content, name)
    read = read_results(data, files.results.absolute(), samples)
    used = {value.samples for value in read.values}
    file = read.evidence_file(stored[files.results.name])
    kept = {name: digest for name, digest in stored.items() if digest in used or names[name] is None}
    return PreparedEvidence(content, kept, file, read.revision)


def _expanded(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
        elif found := find_result_files(path, below=True):
            yield from found
        else:
            raise NotFound(
                f"{path} has no results files, such as results_….json of lm-eval or trainer_state.json"
            )


def _checked_samples(content: Content, name: str) -> Digest:
    if content.sizes[name] > MAX_SAMPLES:
        raise Invalid(f"{name} is {content.sizes[name]:,} bytes; at most {MAX_SAMPLES >> 30} GiB are stored")
    documents = 0
    for _ in lm_eval.read_samples(lm_eval.split_lines(content.chunks(name)), name):
        documents += 1
    if not documents:
        raise Invalid(f"{name} contains no documents")
    return Digest.of_chunks(content.chunks(name))


def _require_revision(prepared: PreparedEvidence, version: VersionInfo) -> None:
    """Raises `Conflict` if the file states that it measured another revision."""
    stated = prepared.revision.removeprefix("sha256:")
    if stated and not version.digest.hex.startswith(stated):
        raise Conflict(
            f"{min(prepared.stored)} states that it measured revision {stated[:12]}, but {version.label} is"
            f" {version.digest.brief}; name the version that was measured"
        )


def _send(
    registry: Registry,
    version: VersionInfo,
    prepared: PreparedEvidence,
    progress: Progress,
    retry: RetryPolicy,
) -> EvidenceAddition:
    for name, digest in prepared.stored.items():
        if not registry.files.has(version.name, digest):
            upload(registry, version.name, prepared.content, name, digest, progress, retry)
    return registry.evidence.add(version.revision_ref, prepared.file)
