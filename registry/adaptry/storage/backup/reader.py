"""Reads a backup: index, catalog, and files in the order of their digests. Nothing in it is trusted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidBackup, NotFound, Unavailable
from adaptry.storage.backup import tar
from adaptry.storage.backup.index import LIMITS, BackupIndex
from adaptry.storage.backup.writer import FILES, SNAPSHOTS
from adaptry.storage.blobs.store import CHUNK


class Backup(ABC):
    """Read once, front to back: `catalog`, then `file` for each file of the catalog, then `finish`."""

    index: BackupIndex

    @abstractmethod
    def catalog(self) -> Iterator[bytes]: ...

    @abstractmethod
    def file(self, digest: Digest, size: int) -> Iterator[bytes]:
        """The bytes of a stored file. Raises `InvalidBackup` if the file is missing."""

    @abstractmethod
    def finish(self) -> None:
        """Raises `InvalidBackup` if the backup has entries that were not read."""


class _Folder(Backup):
    def __init__(self, folder: Path, snapshot: Path) -> None:
        self._folder, self._snapshot = folder, snapshot
        self.index = BackupIndex.parse(_bytes(snapshot / tar.INDEX))

    def catalog(self) -> Iterator[bytes]:
        return _chunks(self._snapshot / tar.CATALOG)

    def file(self, digest: Digest, size: int) -> Iterator[bytes]:
        return _chunks(self._folder / FILES / "sha256" / digest.hex[:2] / digest.hex)

    def finish(self) -> None:
        """Other files in the folder belong to other backups."""


class _File(Backup):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.index = BackupIndex.parse(tar.read_index(file, LIMITS.size))

    def catalog(self) -> Iterator[bytes]:
        return tar.read(self._file, tar.CATALOG, self.index.catalog_size)

    def file(self, digest: Digest, size: int) -> Iterator[bytes]:
        return tar.read(self._file, tar.name_of(digest), size)

    def finish(self) -> None:
        tar.require_end(self._file)


@contextmanager
def open_backup(path: Path, snapshot: str | None = None) -> Iterator[Backup]:
    """The backup in a `.tar`, or in a folder: the newest there, or the one called `snapshot`.

    Raises `NotFound`, `InvalidBackup`, `ProtocolMismatch`, `Unavailable` if it cannot be read.
    """
    try:
        if path.is_file():
            with path.open("rb") as file:
                yield _File(file)
            return
        yield _Folder(path, _snapshot_in(path, snapshot))
    except OSError as error:
        raise Unavailable(f"cannot read {error.filename or path}: {error.strerror or error}") from error


def snapshots(folder: Path) -> tuple[str, ...]:
    """The names of the backups in a folder, oldest first."""
    if not (folder / SNAPSHOTS).is_dir():
        return ()
    return tuple(sorted(path.name for path in (folder / SNAPSHOTS).iterdir() if path.name[:1] != "."))


def _snapshot_in(folder: Path, wanted: str | None) -> Path:
    there = snapshots(folder)
    if not there:
        raise NotFound(f"no backup in {folder}; `adaptry backup {folder}` creates one")
    if wanted is not None and wanted not in there:
        raise NotFound(f"no backup {wanted[:80]!a} in {folder}; there are {', '.join(there[-8:])}")
    return folder / SNAPSHOTS / (wanted or there[-1])


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LIMITS.size + 1)
    except FileNotFoundError:
        raise InvalidBackup(f"the backup is incomplete: {path} is missing") from None


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise InvalidBackup(f"the backup is incomplete: {path} is missing; use another backup") from None
