"""The cache's layout on disk: one folder per digest, hidden while it is incomplete.

    <digest>/adapter/…       the manifest's files: the folder that an engine loads
    <digest>/about.json      the version, and each file's size and change time when it was verified
    .<digest>.part/…         the same, during the download
    .<digest>.lease          a lock, shared by the processes that use the entry; a leased entry is not evicted
    .<digest>.fill           a lock, held by the process that downloads the entry
    .<digest>.held/<engine>  a hold: an engine that may read the entry again; a held entry is kept
    .<digest>.recalled       the reason of a recall: the digest is refused, and deleted once unused
    stacks/…                 adapters that were computed from several versions (`stack_layout`)

The modification time of `about.json` is the time of last use. A folder is published and discarded by a
rename.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from adaptry.core.digest import Digest
from adaptry.core.files.locks import FileLock
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.integrations.serving.cache.stack_layout import StackLayout
from adaptry.registry.records import VersionInfo

FILES = "adapter"
_METADATA_FILE = "about.json"
_HELD = re.compile(r"\.(?P<digest>[0-9a-f]{64})\.held")
_ENTRY = re.compile(r"(?P<hidden>\.?)(?P<digest>[0-9a-f]{64})(?P<part>\.part)?")


class EntryMetadata(BaseModel):
    """The metadata of an entry. `stamps` are each file's size and change time (ns) when it was verified;
    while they are unchanged, the file is not hashed again."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    version: VersionInfo
    files: tuple[FileEntry, ...]
    stamps: dict[str, tuple[int, int]] = {}

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)

    def with_current_stamps(self, folder: Path) -> EntryMetadata:
        """A copy with the stamps that the files have now."""
        return self.model_copy(update={"stamps": dict(file_stamps(folder))})

    def write(self, folder: Path) -> None:
        """Writes the file atomically."""
        temporary = folder / f".{_METADATA_FILE}.{secrets.token_hex(4)}"
        temporary.write_text(self.model_dump_json())
        temporary.replace(folder / _METADATA_FILE)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An entry of the cache. `used_at` is in seconds since 1970. `is_partial`: its download is incomplete."""

    digest: Digest
    version: VersionInfo
    size: int
    used_at: float
    is_partial: bool = False


class CacheLayout:
    """The paths of a cache."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.eviction_lock: Path = root / ".room"
        self.stacks: StackLayout = StackLayout(root)

    def entry_folder(self, digest: Digest) -> Path:
        return self.root / digest.hex

    def partial_folder(self, digest: Digest) -> Path:
        return self._hidden_path(digest, "part")

    def lease_file(self, digest: Digest) -> Path:
        return self._hidden_path(digest, "lease")

    def fill_lock(self, digest: Digest) -> Path:
        return self._hidden_path(digest, "fill")

    def held_folder(self, digest: Digest) -> Path:
        return self._hidden_path(digest, "held")

    def held_folders(self) -> Iterator[tuple[Digest, Path]]:
        """The versions that engines hold, with the folders of their holds."""
        for name in _names(self.root):
            if match := _HELD.fullmatch(name):
                yield Digest(match["digest"]), self.root / name

    def is_held(self, digest: Digest) -> bool:
        """Whether an engine may read the entry again."""
        return bool(_names(self.held_folder(digest)))

    def recall_file(self, digest: Digest) -> Path:
        return self._hidden_path(digest, "recalled")

    def entries(self) -> Iterator[CacheEntry]:
        """All entries with readable metadata, in no order."""
        for name in _names(self.root):
            match = _ENTRY.fullmatch(name)
            if match and bool(match["hidden"]) == bool(match["part"]):
                folder = self.root / name
                if (metadata := read_metadata(folder)) and (used := last_used_at(folder)) is not None:
                    digest = Digest(match["digest"])
                    yield CacheEntry(digest, metadata.version, metadata.size, used, bool(match["part"]))

    def discard(self, folder: Path) -> None:
        """Deletes a folder: renames it first, so that the entry disappears at once."""
        gone = self.root / f".{secrets.token_hex(8)}.gone"
        with contextlib.suppress(FileNotFoundError):
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def discard_unused(self, digest: Digest, *folders: Path) -> bool:
        """Deletes folders of an entry, unless a process leases it or an engine holds it. Returns whether it
        is unused."""
        lease = FileLock.try_exclusive(self.lease_file(digest))
        if lease is None:
            return False
        if self.is_held(digest):  # only processes with a lease write holds, so no further one can appear now
            lease.release()
            return False
        for folder in folders:
            self.discard(folder)
        lease.remove()
        return True

    def sweep(self) -> None:
        """Deletes leftovers of crashed `discard`s, and unused folders without readable metadata."""
        for name in _names(self.root):
            if name.endswith(".gone"):
                shutil.rmtree(self.root / name, ignore_errors=True)
            elif (match := _ENTRY.fullmatch(name)) and read_metadata(self.root / name) is None:
                self.discard_unused(Digest(match["digest"]), self.root / name)

    def _hidden_path(self, digest: Digest, kind: str) -> Path:
        return self.root / f".{digest.hex}.{kind}"


def read_metadata(folder: Path) -> EntryMetadata | None:
    """The metadata of an entry; None if it is missing or cannot be read."""
    try:
        return EntryMetadata.model_validate_json((folder / _METADATA_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def mark_used(folder: Path) -> None:
    """Sets the time of last use to now."""
    with contextlib.suppress(OSError):  # a read-only cache does not record use
        os.utime(folder / _METADATA_FILE)


def last_used_at(folder: Path) -> float | None:
    with contextlib.suppress(FileNotFoundError):
        return (folder / _METADATA_FILE).stat().st_mtime
    return None


def file_stamps(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each file under `folder/adapter` with its size and its ctime (which programs cannot set)."""
    root = folder / FILES
    for path in sorted(root.rglob("*")):
        if not path.is_dir() or path.is_symlink():
            found = path.lstat()
            yield path.relative_to(root).as_posix(), (found.st_size, found.st_ctime_ns)


def eviction_order(entries: Iterable[CacheEntry]) -> list[CacheEntry]:
    """Sorts for eviction: partial downloads first, then least recently used."""
    return sorted(entries, key=lambda entry: (not entry.is_partial, entry.used_at, entry.digest.hex))


def _names(root: Path) -> list[str]:
    try:
        return [path.name for path in root.iterdir()]
    except FileNotFoundError:
        return []
