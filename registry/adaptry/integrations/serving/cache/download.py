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
from adaptry.core.files.background_io import Beside
from adaptry.core.files.durable import explained, flush_files, flush_folder
from adaptry.core.files.locks import FileLock
from adaptry.core.manifest import FileEntry
from adaptry.core.progress import Progress
from adaptry.integrations.serving.cache.eviction import Room
from adaptry.integrations.serving.cache.layout import FILES, About, Shelf, about_of, stamps
from adaptry.integrations.serving.cache.recall_store import require_not_recalled
from adaptry.operations.transfer.file_download import download
from adaptry.operations.transfer.remote import RevisionContent
from adaptry.operations.transfer.retry import Persistence
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionDetail

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Filling:
    """One version on its way into a cache. Whoever calls it holds a lease on its digest."""

    shelf: Shelf
    room: Room
    registry: Registry
    detail: VersionDetail
    progress: Progress
    persistence: Persistence

    @property
    def digest(self) -> Digest:
        return self.detail.version.digest

    def ensure(self) -> bool:
        """Makes sure that the whole version is here; whether it had to be fetched.

        Raises `DigestMismatch`, `StorageFull`, `Withdrawn` where it is recalled meanwhile, and what reading raises.
        """
        place = self.shelf.place(self.digest)
        if is_whole(place):
            return False
        with FileLock.alone(self.shelf.fill(self.digest)):
            if is_whole(place):
                return False  # someone else fetched it while we waited
            self.shelf.discard(place)
            self._fetch()
        return True

    def _fetch(self) -> None:
        part = self.shelf.part(self.digest)
        goes_on = part.is_dir()
        while True:
            try:
                self._arrive(part)
                return
            except DigestMismatch:
                self.shelf.discard(part)
                if not goes_on:
                    raise
                goes_on = False  # what was left may have been what is wrong
            except Withdrawn:
                self.shelf.discard(part)
                raise
            except OSError as error:
                said = explained(error, self.shelf.place(self.digest))
                if not isinstance(said, StorageFull):
                    raise said from error
                self.shelf.discard(part)
                if not self.room.shrink(0):  # what nobody uses goes first
                    raise said from error

    def _arrive(self, part: Path) -> None:
        about = About(version=self.detail.version, files=self.detail.manifest.files)
        self.room.begin(part, about)
        content = RevisionContent(self.registry, self.detail.version, self.detail.manifest)
        for entry in about.files:
            path = part / FILES / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            download(_reader(content, entry), entry, path, self._told, self.persistence)
        _require_only(part, about)
        about.stamped(part).write(part)
        flush_files(part)
        part.rename(self.shelf.place(self.digest))
        flush_folder(self.shelf.root)

    def _told(self, text: str, done: int, total: int) -> None:
        require_not_recalled(self.shelf, self.detail.version)
        self.progress(text, done, total)


def is_whole(place: Path) -> bool:
    """Whether the folder has the files that were verified; what looks otherwise than it did is read again."""
    about = about_of(place)
    if about is None:
        return False
    found = dict(stamps(place))
    if found == about.stamps:
        return True
    try:
        _require_only(place, about)
        if not all(_is_same(place / FILES / entry.path, entry) for entry in about.files):
            return False
    except (AdaptryError, OSError):
        return False
    about.stamped(place).write(place)
    return True


def _reader(content: RevisionContent, entry: FileEntry) -> Callable[[int], Iterator[bytes]]:
    return lambda start: content.chunks(entry.path, start)


def _require_only(folder: Path, about: About) -> None:
    found = [path for path, _ in stamps(folder)]
    if found != [entry.path for entry in about.files]:
        raise DigestMismatch(f"{folder} holds other files than those of {about.version.digest.brief}…")


def _is_same(path: Path, entry: FileEntry) -> bool:
    if path.is_symlink():  # what it leads to can change unseen
        return False
    hasher = sha256()
    with open_regular(path) as file, Beside(hasher.update) as beside:
        while chunk := file.read(_PIECE):
            beside.update(memoryview(chunk))
    return hasher.hexdigest() == entry.sha256.hex
