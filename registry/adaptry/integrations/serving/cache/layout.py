"""How a cache lies on disk, and what is in it: one folder a digest, whole or hidden.

    <digest>/adapter/…      the files, as the manifest names them and nothing else: what an engine is given
    <digest>/about.json     which version it is, and how each file looked when it was verified
    .<digest>.part/…        the same, while it arrives
    .<digest>.lease         held (shared) by whoever uses the folder: it is not evicted under them
    .<digest>.fill          held alone by whoever fills it
    .<digest>.recalled      why it must not be served: nothing is kept under that digest while this is here

When it was last used is the time of `about.json`. A folder appears and goes by a rename.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from adaptry.core.digest import Digest
from adaptry.core.files.locks import FileLock
from adaptry.core.manifest import FileEntry
from adaptry.registry.records import VersionInfo

FILES = "adapter"
_ABOUT = "about.json"
_ENTRY = re.compile(r"(?P<hidden>\.?)(?P<digest>[0-9a-f]{64})(?P<part>\.part)?")


class EntryMetadata(BaseModel):
    """What is said of a folder. `stamps` are each file's size and time of change (ns) when it was verified: as long
    as they are the same, it is not read again."""

    model_config = ConfigDict(frozen=True)

    version: VersionInfo
    files: tuple[FileEntry, ...]
    stamps: dict[str, tuple[int, int]] = {}

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)

    def with_current_stamps(self, folder: Path) -> EntryMetadata:
        """The same, with the files as they look now."""
        return self.model_copy(update={"stamps": dict(file_stamps(folder))})

    def write(self, folder: Path) -> None:
        """Whole or not at all."""
        temporary = folder / f".{_ABOUT}.{secrets.token_hex(4)}"
        temporary.write_text(self.model_dump_json())
        temporary.replace(folder / _ABOUT)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Something in a cache. `used_at` in seconds since 1970; a part is what has not all arrived."""

    digest: Digest
    version: VersionInfo
    size: int
    used_at: float
    is_partial: bool = False


class CacheLayout:
    """The folders of a cache, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.eviction_lock = root / ".room"

    def entry_folder(self, digest: Digest) -> Path:
        return self.root / digest.hex

    def partial_folder(self, digest: Digest) -> Path:
        return self._hidden_path(digest, "part")

    def lease_file(self, digest: Digest) -> Path:
        return self._hidden_path(digest, "lease")

    def fill_lock(self, digest: Digest) -> Path:
        return self._hidden_path(digest, "fill")

    def recall_file(self, digest: Digest) -> Path:
        return self._hidden_path(digest, "recalled")

    def entries(self) -> Iterator[CacheEntry]:
        """Everything that can be made out, in no order."""
        for name in _names(self.root):
            match = _ENTRY.fullmatch(name)
            if match and bool(match["hidden"]) == bool(match["part"]):
                folder = self.root / name
                if (metadata := read_metadata(folder)) and (used := last_used_at(folder)) is not None:
                    digest = Digest(match["digest"])
                    yield CacheEntry(digest, metadata.version, metadata.size, used, bool(match["part"]))

    def discard(self, folder: Path) -> None:
        """Takes a folder off the shelf: gone by its name at once, then from the disk."""
        gone = self.root / f".{secrets.token_hex(8)}.gone"
        with contextlib.suppress(FileNotFoundError):
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """Removes what someone died discarding, and folders that nobody uses or knows: another version of ours made them."""
        for name in _names(self.root):
            if name.endswith(".gone"):
                shutil.rmtree(self.root / name, ignore_errors=True)
            elif (match := _ENTRY.fullmatch(name)) and read_metadata(self.root / name) is None:
                lease = FileLock.try_exclusive(self.lease_file(Digest(match["digest"])))
                if lease is not None:
                    self.discard(self.root / name)
                    lease.remove()

    def _hidden_path(self, digest: Digest, kind: str) -> Path:
        return self.root / f".{digest.hex}.{kind}"


def read_metadata(folder: Path) -> EntryMetadata | None:
    """What is said of a folder; None where nothing is, or nothing that can be read."""
    try:
        return EntryMetadata.model_validate_json((folder / _ABOUT).read_bytes())
    except (OSError, ValidationError):
        return None


def mark_used(folder: Path) -> None:
    """Says that it is used now."""
    with contextlib.suppress(OSError):  # a cache that may only be read remembers no use
        os.utime(folder / _ABOUT)


def last_used_at(folder: Path) -> float | None:
    with contextlib.suppress(FileNotFoundError):
        return (folder / _ABOUT).stat().st_mtime
    return None


def file_stamps(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each file under `folder/adapter` with its size and the time when it last changed (which nobody can set)."""
    root = folder / FILES
    for path in sorted(root.rglob("*")):
        if not path.is_dir() or path.is_symlink():
            found = path.lstat()
            yield path.relative_to(root).as_posix(), (found.st_size, found.st_ctime_ns)


def eviction_order(entries: Iterable[CacheEntry]) -> list[CacheEntry]:
    """In the order in which they go where room is needed: parts first, then what was not used for longest."""
    return sorted(entries, key=lambda entry: (not entry.is_partial, entry.used_at, entry.digest.hex))


def _names(root: Path) -> list[str]:
    try:
        return [path.name for path in root.iterdir()]
    except FileNotFoundError:
        return []
