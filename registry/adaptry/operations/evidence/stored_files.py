"""Reads the stored files of evidence, verified: into a file, or as the values of single documents."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from adaptry.core.errors import Conflict, DigestMismatch, NotFound
from adaptry.core.evidence import lm_eval
from adaptry.core.evidence.lm_eval import DocumentScore
from adaptry.core.files.atomic_file import atomic_file
from adaptry.core.manifest import FileEntry
from adaptry.core.progress import no_progress
from adaptry.operations.transfer.file_download import read_resumable
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.registry.evidence import Evidence, EvidencePart


def write_stored_file(
    evidence: Evidence, id: int, part: EvidencePart, target: Path, retry: RetryPolicy = DEFAULT_RETRY
) -> None:
    """Writes a stored file to `target`, complete or not at all. Raises `NotFound`, `Conflict` if there is a
    file already, and `DigestMismatch`.
    """
    if target.exists():
        raise Conflict(f"{target} exists already; choose another name, or remove it")
    chunks = iter_stored_file(evidence, id, part, retry)
    with atomic_file(target) as file:
        for chunk in chunks:
            file.write(chunk)


def iter_stored_file(
    evidence: Evidence, id: int, part: EvidencePart, retry: RetryPolicy = DEFAULT_RETRY
) -> Iterator[bytes]:
    """The bytes of a stored file. Raises `NotFound`, and `DigestMismatch` at their end."""
    entry = _entry(evidence, id, part)
    hasher = sha256()
    for chunk in read_resumable(lambda start: evidence.read_file(id, part, start), entry, no_progress, retry):
        hasher.update(chunk)
        yield chunk
    if hasher.hexdigest() != entry.sha256.hex:
        raise DigestMismatch(
            f"the {part} of evidence {id} arrived with different bytes than were stored; try again"
        )


def iter_document_scores(evidence: Evidence, id: int) -> Iterator[DocumentScore]:
    """The value of each document, from the stored samples file. Raises the errors of `iter_stored_file`."""
    lines = lm_eval.split_lines(iter_stored_file(evidence, id, "samples"))
    return lm_eval.read_samples(lines, f"the samples of evidence {id}")


def _entry(evidence: Evidence, id: int, part: EvidencePart) -> FileEntry:
    for entry in evidence.files(id):
        if entry.path == part:
            return entry
    raise NotFound(f"evidence {id} has no stored {part}")
