"""Imports an adapter from a hub as a version, with its origin in the manifest.

Its files are downloaded into a temporary folder, each verified with the hub's digest, and pushed like any
others: with the same checks and limits, and no executable files.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.diagnostics import raise_no_adapter
from adaptry.adapters.formats import AdapterFormat, detect_format
from adaptry.core.errors import DigestMismatch, TooLarge
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import MAX_REVISION, FileEntry
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.core.tree_paths import check_path
from adaptry.operations.base_recognition import RecognisedBase, declared_base
from adaptry.operations.hf_import.file_reader import HubFileReader
from adaptry.operations.hf_import.hub_client import HubClient, HubRepoRevision
from adaptry.operations.hf_import.hub_names import HubRef
from adaptry.operations.transfer import push
from adaptry.operations.transfer.file_download import download
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, PushResult

REPOSITORY, COMMIT, ENDPOINT = "hub_repository", "hub_commit", "hub_endpoint"
"""The provenance in the manifest of an adapter from a hub."""

_NO_OPTIONS = PushOptions()
_MAX_SMALL_FILE = 64 << 20


@dataclass(frozen=True, slots=True)
class ImportedAdapter:
    """The new version, the hub's revision, and files of the repository that are not part of an adapter."""

    pushed: PushResult
    revision: HubRepoRevision
    left_out: tuple[str, ...]


def push_from_hub(
    registry: Registry,
    hub: HubClient,
    ref: HubRef,
    name: AdapterName,
    *,
    base: RecognisedBase | None = None,
    options: PushOptions = _NO_OPTIONS,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> ImportedAdapter:
    """Pushes the adapter that `ref` selects now as a version of `name`. The same commit returns the same
    version.

    Raises what `HubClient.resolve` and `push` raise, `NotFound` and `Unsupported` if there is no adapter that
    we read, `TooLarge` before anything is downloaded, `DigestMismatch`.
    """
    revision = hub.resolve(ref)
    names = set(revision.files)
    format = detect_format(names) or raise_no_adapter(Path(f"hf:{revision.repository}"), names)
    kept = sorted(check_path(path) for path in names if "/" not in path and format.includes(path))
    _check_sizes(revision, kept)
    with tempfile.TemporaryDirectory(prefix="adaptry-from-hub-") as folder:
        files = HubFileReader(hub, revision)
        for path in kept:
            _fetch(files, path, Path(folder) / path, progress, retry)
        adapter = open_dir(folder)
        pushed = push(
            registry,
            adapter,
            name,
            base=base or declared_base(adapter),
            options=options,
            provenance=hub_provenance(hub, revision),
            progress=progress,
            retry=retry,
        )
    return ImportedAdapter(pushed, revision, tuple(sorted(names - set(kept))))


def hub_provenance(hub: HubClient, revision: HubRepoRevision) -> Mapping[str, str]:
    return {REPOSITORY: revision.repository, COMMIT: revision.commit, ENDPOINT: hub.endpoint}


def adapter_format(files: tuple[str, ...]) -> AdapterFormat | None:
    """The format of the adapter in a repository with these files, if it has one."""
    return detect_format(path for path in files if "/" not in path)


def _check_sizes(revision: HubRepoRevision, kept: list[str]) -> None:
    """Raises for files that a registry would refuse, before downloading, and for large files without a
    SHA-256.
    """
    total = sum(revision.files[path].size for path in kept)
    if total > MAX_REVISION:
        raise TooLarge(
            f"{revision} is {total:,} bytes, more than the {MAX_REVISION >> 30} GiB of one revision"
        )
    for path in kept:
        if revision.files[path].sha256 is None and revision.files[path].size > _MAX_SMALL_FILE:
            raise TooLarge(
                f"{path} of {revision} is larger than {_MAX_SMALL_FILE >> 20} MiB,"
                " and the hub has no SHA-256 for it"
            )


def _fetch(files: HubFileReader, path: str, target: Path, progress: Progress, retry: RetryPolicy) -> None:
    file = files.file_info(path)
    if file.sha256 is not None:
        entry = FileEntry(path=path, size=file.size, sha256=file.sha256)
        download(files.stream(path), entry, target, progress, retry)
        return
    data = files.read(path, 0, file.size)
    if file.git_id is not None and _git_id(data) != file.git_id:
        raise DigestMismatch(
            f"the received bytes of {path} do not match the hub's digest; nothing was kept, try again"
        )
    target.write_bytes(data)


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
