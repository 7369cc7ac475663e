"""Fills a cache entry: downloads a version into a partial folder, verifies it, publishes it by one rename.

A partial folder that an earlier attempt left is resumed; if its content is wrong, it is fetched once more
from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from adaptry.adapters.content import open_regular
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, DigestMismatch, StorageFull, Withdrawn
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.files.durable import flush_files, flush_folder, write_error
from adaptry.core.files.locks import FileLock
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.core.progress import Progress
from adaptry.integrations.serving.cache.eviction import Evictor
from adaptry.integrations.serving.cache.layout import (
    FILES,
    CacheLayout,
    EntryMetadata,
    file_stamps,
    read_metadata,
)
from adaptry.integrations.serving.cache.recall_store import require_not_recalled
from adaptry.operations.transfer.file_download import download
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionDetail

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class CacheFill:
    """The download of one version into the cache. The caller holds a lease on its digest."""

    layout: CacheLayout
    evictor: Evictor
    registry: Registry
    detail: VersionDetail
    progress: Progress
    retry: RetryPolicy

    @property
    def digest(self) -> Digest:
        return self.detail.version.digest

    def ensure_present(self) -> bool:
        """Fetches the version unless its entry is intact. Returns whether it was fetched.

        Raises `DigestMismatch`, `StorageFull`, `Withdrawn` if it is recalled during the download, and the
        registry's errors.
        """
        folder = self.layout.entry_folder(self.digest)
        if is_intact(folder):
            return False
        with FileLock.acquire_exclusive(self.layout.fill_lock(self.digest)):
            if is_intact(folder):
                return False  # another process fetched it while we waited
            self.layout.discard(folder)
            self._fetch()
        return True

    def _fetch(self) -> None:
        partial = self.layout.partial_folder(self.digest)
        is_resumed = partial.is_dir()
        while True:
            try:
                self._download_and_publish(partial)
                return
            except DigestMismatch:
                self.layout.discard(partial)
                if not is_resumed:
                    raise
                is_resumed = False  # the resumed part may have been the wrong one
            except Withdrawn:
                self.layout.discard(partial)
                raise
            except OSError as error:
                failure = write_error(error, self.layout.entry_folder(self.digest))
                if not isinstance(failure, StorageFull):
                    raise failure from error
                self.layout.discard(partial)
                if not self.evictor.shrink(0):  # the disk is full: retry if evicting frees space
                    raise StorageFull(f"{failure.message}{self.evictor.users_sentence()}") from error

    def _download_and_publish(self, partial: Path) -> None:
        metadata = EntryMetadata(version=self.detail.version, files=self.detail.manifest.files)
        self.evictor.reserve(partial, metadata)
        content = RevisionContent(self.registry, self.detail.version, self.detail.manifest)
        for entry in metadata.files:
            path = partial / FILES / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            download(_reader(content, entry), entry, path, self._report_progress, self.retry)
        _require_only(partial, metadata)
        metadata.with_current_stamps(partial).write(partial)
        flush_files(partial)
        partial.rename(self.layout.entry_folder(self.digest))
        flush_folder(self.layout.root)

    def _report_progress(self, text: str, done: int, total: int) -> None:
        require_not_recalled(self.layout, self.detail.version)
        self.progress(text, done, total)


def is_intact(folder: Path) -> bool:
    """Whether the folder has exactly the verified files. Rehashes only files whose stamps have changed."""
    metadata = read_metadata(folder)
    if metadata is None:
        return False
    found = dict(file_stamps(folder))
    if found == metadata.stamps:
        return True
    try:
        _require_only(folder, metadata)
        if not all(_is_same(folder / FILES / entry.path, entry) for entry in metadata.files):
            return False
    except (AdaptryError, OSError):
        return False
    metadata.with_current_stamps(folder).write(folder)
    return True


def _reader(content: RevisionContent, entry: FileEntry) -> Callable[[int], Iterator[bytes]]:
    return lambda start: content.chunks(entry.path, start)


def _require_only(folder: Path, metadata: EntryMetadata) -> None:
    found = [path for path, _ in file_stamps(folder)]
    if found != [entry.path for entry in metadata.files]:
        raise DigestMismatch(f"the files in {folder} are not those of {metadata.version.digest.brief}…")


def _is_same(path: Path, entry: FileEntry) -> bool:
    if path.is_symlink():  # a link's target can change without a new stamp
        return False
    hasher = sha256()
    with open_regular(path) as file, BackgroundHasher(hasher.update) as beside:
        while chunk := file.read(_PIECE):
            beside.update(memoryview(chunk))
    return hasher.hexdigest() == entry.sha256.hex
