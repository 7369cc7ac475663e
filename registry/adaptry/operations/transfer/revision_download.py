"""Downloads the files of a revision, verified, into a folder that appears complete or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adaptry.adapters.output_folder import output_folder
from adaptry.core.errors import StorageFull
from adaptry.operations.transfer.file_download import FileToFetch, download

if TYPE_CHECKING:
    from adaptry.core.digest import Digest
    from adaptry.core.progress import Progress
    from adaptry.core.refs import AdapterName, Ref
    from adaptry.operations.transfer.retry import RetryPolicy
    from adaptry.registry.files import Files
    from adaptry.registry.interface import Registry


class VersionToFetch(Protocol):
    """A version, as a record or as plain values."""

    @property
    def name(self) -> AdapterName: ...
    @property
    def digest(self) -> Digest: ...
    @property
    def revision_ref(self) -> Ref: ...


def fetch_version(
    registry: Registry,
    version: VersionToFetch,
    entries: Iterable[FileToFetch],
    target: Path,
    force: bool,
    progress: Progress,
    retry: RetryPolicy,
) -> None:
    """Downloads a version into `target`, and counts the download. Raises the errors of `fetch_revision`."""
    fetch_revision(registry.files, version.name, version.digest, entries, target, force, progress, retry)
    with suppress(StorageFull):  # the version has been downloaded, whether or not this was counted
        registry.versions.count_download(version.revision_ref)


def fetch_revision(
    files: Files,
    name: AdapterName,
    revision: Digest,
    entries: Iterable[FileToFetch],
    target: Path,
    force: bool,
    progress: Progress,
    retry: RetryPolicy,
) -> None:
    """Downloads a revision into `target`, which appears atomically. Raises the errors of `download`,
    `output_folder`.
    """
    with output_folder(target, replace=force) as place:
        for entry in entries:
            path = place / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            download(_reader(files, name, revision, entry.path), entry, path, progress, retry)


def _reader(files: Files, name: AdapterName, revision: Digest, path: str) -> Callable[[int], Iterator[bytes]]:
    return lambda start: files.read(name, revision, path, start)
