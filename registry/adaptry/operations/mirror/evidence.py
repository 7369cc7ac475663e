"""Copies the evidence of a version to another registry, with its files and withdrawals.

Author and time are not copied; a mirror never copies them. Existing values are not added again,
so an interrupted copy can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptry.adapters.content import StreamedContent
from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.evidence.values import EvidenceFile, EvidenceValue
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.transfer.file_upload import upload
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.registry.evidence import Evidence, EvidenceInfo, EvidencePart, WithdrawalRequest
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import VersionInfo

_MAX_REASON = 1024
_OWN_TO_A_REGISTRY = {"id", "name", "number", "base", "at", "by", "withdrawn"}


def copy_evidence(
    source: Registry,
    destination: Registry,
    version: VersionInfo,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> bool:
    """Copies the evidence that the destination lacks for a version that it has. Returns whether anything
    changed.

    Raises the errors of `upload` and `evidence.add`.
    """
    there = _of_files(source.evidence, version)
    if not there:
        return False
    here = _of_files(destination.evidence, version)
    files = _missing_files(there, here)
    for file, id in files.items():
        content = EvidenceContent(source.evidence, id)
        for part, digest in content.digests.items():
            if not destination.files.has(version.name, digest):
                upload(destination, version.name, content, part, digest, progress, retry)
        destination.evidence.add(version.revision_ref, file)
    if files:
        here = _of_files(destination.evidence, version)
    return _copy_withdrawals(destination.evidence, there, here) or bool(files)


class EvidenceContent(StreamedContent):
    """The stored files of evidence, read from its registry; each is named after its part."""

    def __init__(self, evidence: Evidence, id: int) -> None:
        self._evidence = evidence
        self._id = id
        self._parts: dict[str, EvidencePart] = {"file": "file", "samples": "samples"}
        entries = evidence.files(id)
        self._sizes = {entry.path: entry.size for entry in entries}
        self.digests: Mapping[str, Digest] = {entry.path: entry.sha256 for entry in entries}

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        return self._evidence.read_file(self._id, self._parts[path], start)


def _of_files(evidence: Evidence, version: VersionInfo) -> dict[str, EvidenceInfo]:
    """The values from files, by measurement, oldest first; empty if the registry answers `NotFound`."""
    ref = version.revision_ref
    try:
        found = list(iter_items(lambda cursor: evidence.list(ref, cursor=cursor, limit=200)))
    except NotFound:
        return {}
    return {_measured(one): one for one in reversed(found) if one.file is not None}


def _measured(one: EvidenceInfo) -> str:
    return one.model_dump_json(exclude=_OWN_TO_A_REGISTRY)


def _missing_files(
    there: Mapping[str, EvidenceInfo], here: Mapping[str, EvidenceInfo]
) -> dict[EvidenceFile, int]:
    """The files to add, each with at most one of its samples files, and the id of a value that has these
    files.
    """
    values: dict[tuple[Digest | None, Digest | None], list[EvidenceInfo]] = {}
    for key, one in there.items():
        if key not in here:
            values.setdefault((one.file, one.samples), []).append(one)
    return {_as_file(group): group[0].id for group in values.values()}


def _as_file(group: list[EvidenceInfo]) -> EvidenceFile:
    first = group[0]
    assert first.file is not None and first.format is not None, "only values of files are copied"
    return EvidenceFile(
        digest=first.file,
        format=first.format,
        harness=first.harness,
        harness_version=first.harness_version,
        harness_commit=first.harness_commit,
        chat_template=first.chat_template,
        values=tuple(
            EvidenceValue.model_validate(one.model_dump(include=set(EvidenceValue.model_fields)))
            for one in group
        ),
    )


def _copy_withdrawals(
    evidence: Evidence, there: Mapping[str, EvidenceInfo], here: Mapping[str, EvidenceInfo]
) -> bool:
    is_change = False
    for key, one in there.items():
        copy = here.get(key)
        if one.withdrawn is not None and copy is not None and copy.withdrawn is None:
            evidence.withdraw(copy.id, WithdrawalRequest(reason=one.withdrawn.reason[:_MAX_REASON]))
            is_change = True
    return is_change
