"""How an adapter comes into a cache: made sure of, else fetched, verified, and published by one rename.

What an earlier try left is gone on from; where that was wrong, it is fetched once more from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from adaptry.adapters.content import open_regular
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, DigestMismatch, StorageFull, Withdrawn
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.files.durable import flush_files, flush_folder, write_error
from adaptry.core.files.locks import FileLock
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
    """One version on its way into a cache. Whoever calls it holds a lease on its digest."""

    layout: CacheLayout
    evictor: Evictor
    registry: Registry
    detail: VersionDetail
    progress: Progress
    persistence: RetryPolicy

    @property
    def digest(self) -> Digest:
        return self.detail.version.digest

    def ensure_present(self) -> bool:
        """Makes sure that the whole version is here; whether it had to be fetched.

        Raises `DigestMismatch`, `StorageFull`, `Withdrawn` where it is recalled meanwhile, and what reading raises.
        """
        place = self.layout.entry_folder(self.digest)
        if is_intact(place):
            return False
        with FileLock.acquire_exclusive(self.layout.fill_lock(self.digest)):
            if is_intact(place):
                return False  # someone else fetched it while we waited
            self.layout.discard(place)
            self._fetch()
        return True

    def _fetch(self) -> None:
        part = self.layout.partial_folder(self.digest)
        goes_on = part.is_dir()
        while True:
            try:
                self._download_and_publish(part)
                return
            except DigestMismatch:
                self.layout.discard(part)
                if not goes_on:
                    raise
                goes_on = False  # what was left may have been what is wrong
            except Withdrawn:
                self.layout.discard(part)
                raise
            except OSError as error:
                said = write_error(error, self.layout.entry_folder(self.digest))
                if not isinstance(said, StorageFull):
                    raise said from error
                self.layout.discard(part)
                if not self.evictor.shrink(0):  # what nobody uses goes first
                    raise said from error

    def _download_and_publish(self, part: Path) -> None:
        about = EntryMetadata(version=self.detail.version, files=self.detail.manifest.files)
        self.evictor.reserve(part, about)
        content = RevisionContent(self.registry, self.detail.version, self.detail.manifest)
        for entry in about.files:
            path = part / FILES / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            download(_reader(content, entry), entry, path, self._report_progress, self.persistence)
        _require_only(part, about)
        about.with_current_stamps(part).write(part)
        flush_files(part)
        part.rename(self.layout.entry_folder(self.digest))
        flush_folder(self.layout.root)

    def _report_progress(self, text: str, done: int, total: int) -> None:
        require_not_recalled(self.layout, self.detail.version)
        self.progress(text, done, total)


def is_intact(place: Path) -> bool:
    """Whether the folder has the files that were verified; what looks otherwise than it did is read again."""
    about = read_metadata(place)
    if about is None:
        return False
    found = dict(file_stamps(place))
    if found == about.stamps:
        return True
    try:
        _require_only(place, about)
        if not all(_is_same(place / FILES / entry.path, entry) for entry in about.files):
            return False
    except (AdaptryError, OSError):
        return False
    about.with_current_stamps(place).write(place)
    return True


def _reader(content: RevisionContent, entry: FileEntry) -> Callable[[int], Iterator[bytes]]:
    return lambda start: content.chunks(entry.path, start)


def _require_only(folder: Path, about: EntryMetadata) -> None:
    found = [path for path, _ in file_stamps(folder)]
    if found != [entry.path for entry in about.files]:
        raise DigestMismatch(f"{folder} holds other files than those of {about.version.digest.brief}…")


def _is_same(path: Path, entry: FileEntry) -> bool:
    if path.is_symlink():  # what it leads to can change unseen
        return False
    hasher = sha256()
    with open_regular(path) as file, BackgroundHasher(hasher.update) as beside:
        while chunk := file.read(_PIECE):
            beside.update(memoryview(chunk))
    return hasher.hexdigest() == entry.sha256.hex
