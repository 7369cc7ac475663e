"""A repository at one commit, as clients see it: files by path, whatever their source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Any, NamedTuple, overload

from starlette.responses import Response

from adaptry.core.errors import FileMissing, Invalid, Withdrawn
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.core.refs import Ref
from adaptry.registry.commit_info import CommitInfo
from adaptry_api.hub import gitids
from adaptry_api.hub.card import README, Card, read_card
from adaptry_api.hub.computed_cache import HubCaches

Read = Callable[[str, int], Iterator[bytes]]
"""A file's bytes from a position on."""

MAX_CACHED_FILES = 64
"""Maximum number of files of a snapshot that is cached."""


class CachedAnswer(NamedTuple):
    """An encoded answer about a snapshot."""

    body: bytes
    headers: Sequence[tuple[bytes, bytes]]

    @classmethod
    def of(cls, response: Response) -> CachedAnswer:
        return cls(bytes(response.body), tuple(response.raw_headers))

    def response(self) -> Response:
        """A new response, to which headers may be added."""
        response = Response(self.body)
        response.raw_headers = list(self.headers)
        return response


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    """A file. `oid` is its git id: of its bytes, or of the pointer to them if `sha256` is set."""

    path: str
    size: int
    oid: str
    sha256: str | None = None

    @property
    def etag(self) -> str:
        """The id under which clients cache the bytes, and which they compare with their own hash."""
        return self.sha256 or self.oid


class FileList(Sequence[RepositoryFile], ABC):
    """The files of a snapshot, in the order in which clients see them."""

    @abstractmethod
    def find(self, path: str) -> RepositoryFile | None:
        """The file at that path, or None."""


class ListedFiles(FileList):
    """Files that are all known."""

    def __init__(self, files: Iterable[RepositoryFile]) -> None:
        self._files = tuple(files)

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> RepositoryFile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RepositoryFile]: ...
    def __getitem__(self, index: int | slice) -> RepositoryFile | Sequence[RepositoryFile]:
        return self._files[index]

    def find(self, path: str) -> RepositoryFile | None:
        return next((file for file in self._files if file.path == path), None)


class LazyFiles(FileList):
    """Files whose git ids are computed when they are used.

    A branch may have thousands of files, and a client requests each of them separately.
    """

    def __init__(self, entries: Sequence[FileEntry], make: Callable[[FileEntry], RepositoryFile]) -> None:
        self._entries = entries
        self._make = make

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> RepositoryFile: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RepositoryFile]: ...
    def __getitem__(self, index: int | slice) -> RepositoryFile | Sequence[RepositoryFile]:
        if isinstance(index, slice):
            return LazyFiles(self._entries[index], self._make)
        return self._make(self._entries[index])

    def find(self, path: str) -> RepositoryFile | None:
        """As in `FileList`; ids of other files are not computed."""
        return next((self._make(entry) for entry in self._entries if entry.path == path), None)


@dataclass(frozen=True, slots=True)
class RepositoryDetails:
    """The metadata of a repository; `bases` are the models that an adapter was trained on. (`Any`: the card
    and the config are free-form.)
    """

    created_at: datetime
    updated_at: datetime
    is_private: bool = True
    downloads: int = 0
    tags: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    library: str | None = None
    pipeline: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one commit. `details`, `warnings`, `last_commits` are functions: each costs look-ups.

    `require_available` raises `Withdrawn` if the reader may see the list of files but not read them.
    `warnings` are sent with each download; `last_commits` gives, by path, the last commit that changed a
    file. Sending the file `counted` counts as a download of `version`, which has the same files if
    `is_version`, else the same weights. `is_remote`: the bytes are not on this machine's disk, so reads may
    be slow. `depends_on_catalog`: the snapshot depends on nothing else, so it may be used until the catalog
    changes; `require_available`, `warnings` and `read` then look up each value only once. `answers` and
    `small_files` keep what was computed or read for the same caller.
    """

    repository: str
    commit: str
    files: FileList
    read: Read
    details: Callable[[], RepositoryDetails]
    warnings: Callable[[], tuple[str, ...]] = tuple
    last_commits: Callable[[], Mapping[str, CommitInfo]] = dict
    counted: str | None = None
    version: Ref | None = None
    is_version: bool = False
    is_remote: bool = False
    require_available: Callable[[], None] = lambda: None
    depends_on_catalog: bool = False
    answers: dict[str, CachedAnswer] = field(default_factory=dict)
    small_files: dict[str, bytes] = field(default_factory=dict)

    @property
    def is_cacheable(self) -> bool:
        """Whether the snapshot may be used again until the catalog changes, and takes little memory."""
        return self.depends_on_catalog and len(self.files) <= MAX_CACHED_FILES

    def file(self, path: str) -> RepositoryFile:
        """The file at that path. Raises `FileMissing`."""
        if (found := self.files.find(path)) is not None:
            return found
        raise FileMissing(f"{self.repository} has no file {path[:200]!a} at {self.commit[:12]}")


def repository_files(entries: Sequence[FileEntry], read: Read, caches: HubCaches) -> FileList:
    """The stored files of a snapshot; if there are many, each is created when it is used."""
    files = LazyFiles(entries, lambda entry: repository_file(entry, read, caches))
    return files if len(entries) > MAX_CACHED_FILES else ListedFiles(files)


def repository_file(entry: FileEntry, read: Read, caches: HubCaches) -> RepositoryFile:
    """A stored file. A small file's bytes are read on first use; if they are withheld, the id is our own, not
    git's.
    """
    if gitids.is_large(entry.path, entry.size):
        oid = gitids.blob_id(gitids.pointer(entry.sha256, entry.size))
        return RepositoryFile(entry.path, entry.size, oid, entry.sha256.hex)
    try:
        oid = caches.blob_ids.get_or_compute(
            entry.sha256, lambda: gitids.blob_id_of(read(entry.path, 0), entry.size)
        )
    except Withdrawn:
        oid = entry.sha256.short_id
    return RepositoryFile(entry.path, entry.size, oid)


def card_of(entries: Mapping[str, FileEntry], read: Read, caches: HubCaches) -> Card:
    """The model card among some files; an empty card if it is malformed or withheld."""
    entry = entries.get(README)
    if entry is None or entry.size > gitids.MAX_REGULAR_SIZE:
        return Card()

    def parse() -> Card:
        try:
            return read_card(b"".join(read(README, 0)))
        except Invalid:
            return Card()

    try:
        return caches.cards.get_or_compute(entry.sha256, parse)
    except Withdrawn:
        return Card()
