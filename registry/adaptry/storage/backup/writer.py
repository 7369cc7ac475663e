"""Taking a backup: a snapshot of the catalog first; then every file it names, compared with its digest.

A server, pushes and sweeps may run at the same time. An interrupted backup never gets a name that a restore
accepts.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, CorruptData, DigestMismatch, NotFound
from adaptry.core.files.durable import flush_folder
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.storage.backup import tar
from adaptry.storage.backup.index import LACKING, BackupIndex
from adaptry.storage.backup.needed_files import iter_needed_files
from adaptry.storage.backup.unfinished import private_file, private_folder
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.blobs.store import BlobStore
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry

SNAPSHOTS, FILES = "snapshots", "files"
_TAR = ".tar"
_MAX_READS = 2  # a damaged file that was replaced while it was read is intact when it is read again


@dataclass(frozen=True, slots=True)
class BackupResult:
    """The backup's path and contents; `added` files are new there."""

    place: Path
    index: BackupIndex
    added: int


def create(
    registry: LocalRegistry,
    to: Path,
    *,
    verify: bool = False,
    skip_damaged: bool = False,
    progress: Progress = no_progress,
) -> BackupResult:
    """Backs up the registry to the file `to` if it ends in `.tar`, else into the folder `to`, beside others.

    With `verify`, files of earlier backups in the folder are read again, and replaced if they are damaged.
    With `skip_damaged`, files of the registry that are lost or damaged are left out and named in the index.

    Raises `CheckFailed` (its rows or files are elsewhere), `CorruptData` (a file of the registry is lost or
    damaged), `Conflict` (the file exists, or the folder has other files), `StorageFull`, `Unavailable`.
    """
    blobs = registry.blobs
    if not registry.catalog.path or not isinstance(blobs, LocalBlobs):
        raise CheckFailed(
            "this registry's rows are in PostgreSQL or its files are in a bucket: back up the database with"
            " pg_dump first, then copy or version the bucket (docs/deploying.md, Back up and restore)"
        )
    is_file = to.suffix == _TAR
    if is_file and to.exists():
        raise Conflict(f"{to} exists; choose another name")
    if to.is_dir() and not (to / SNAPSHOTS).is_dir() and any(to.iterdir()):
        raise Conflict(f"{to} has files that belong to no backup; choose a new folder, or one with backups")
    folder = to.absolute().parent if is_file else to.absolute() / SNAPSHOTS
    with private_folder(folder, to.name if is_file else "snapshot") as part, blobs.held():
        snapshot = part / tar.CATALOG
        _copy_catalog(registry.catalog, snapshot)
        source = _Source(blobs, skip_damaged)
        if is_file:
            return _to_file(registry, source, snapshot, to.absolute(), progress)
        return _to_folder(registry, source, snapshot, to.absolute(), verify, progress)


class _Source:
    """The registry's files, compared with their digests while they are read."""

    def __init__(self, blobs: BlobStore, skip_damaged: bool) -> None:
        self._blobs = blobs
        self._skips = skip_damaged
        self.lacking: list[Digest] = []

    def is_sound(self, digest: Digest, size: int) -> bool:
        """Reads the file. False if it is damaged and may be left out. Raises `CorruptData`."""
        for _ in range(_MAX_READS):
            try:
                if (
                    self._blobs.size(digest) == size
                    and Digest.of_chunks(self._blobs.chunks(digest)) == digest
                ):
                    return True
            except NotFound:
                pass
        self.lose(digest)
        return False

    def copy(self, digest: Digest, store: BlobStore) -> bool:
        """Stores the file in `store`, unless a copy is there that `is_sound` accepts."""
        for _ in range(_MAX_READS):
            with suppress(DigestMismatch, NotFound):
                store.put(digest, self.chunks(digest))
                return True
        self.lose(digest)
        return False

    def lose(self, digest: Digest) -> None:
        if not self._skips or len(self.lacking) == LACKING:
            raise CorruptData(
                f"the registry's file {digest} is lost or damaged, so the backup would be incomplete;"
                " push its adapter again, or leave out damaged files with --skip-damaged"
            )
        self.lacking.append(digest)

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        return self._blobs.chunks(digest)


def _to_folder(
    registry: LocalRegistry, source: _Source, snapshot: Path, to: Path, verify: bool, progress: Progress
) -> BackupResult:
    store = LocalBlobs(to / FILES)
    files = size = added = 0
    for digest, expected in iter_needed_files(snapshot):
        if store.has(digest) and (
            store.size(digest) != expected or (verify and Digest.of_chunks(store.chunks(digest)) != digest)
        ):
            store.delete(digest)
        if not store.has(digest):
            if not source.copy(digest, store):
                continue
            added += 1
        files, size = files + 1, size + expected
        progress("backing up", size, size + 1)
    index = _index(registry, snapshot, files, size, source.lacking)
    _write(snapshot.with_name(tar.INDEX), index.to_bytes())
    flush_folder(snapshot.parent)
    place = to / SNAPSHOTS / f"{index.created_at:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"
    snapshot.parent.rename(place)
    flush_folder(place.parent)
    return BackupResult(place, index, added)


def _to_file(
    registry: LocalRegistry, source: _Source, snapshot: Path, to: Path, progress: Progress
) -> BackupResult:
    files = size = 0
    for digest, expected in iter_needed_files(snapshot):
        if source.is_sound(digest, expected):
            files, size = files + 1, size + expected
    index = _index(registry, snapshot, files, size, source.lacking)
    left_out, done = set(source.lacking), 0
    part = snapshot.with_name("backup")
    with os.fdopen(private_file(part), "wb") as file:
        data = index.to_bytes()
        tar.write(file, tar.INDEX, len(data), [data])
        tar.write(file, tar.CATALOG, index.catalog_size, _read(snapshot))
        for digest, expected in iter_needed_files(snapshot):
            if digest in left_out:
                continue
            tar.write(file, tar.name_of(digest), expected, _checked(source, digest))
            done += expected
            progress("backing up", done, size)
        tar.end(file)
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(part, to)  # unlike a rename, this never replaces a file that was created in the meantime
        flush_folder(to.parent)
        return BackupResult(to, index, files)
    raise Conflict(f"{to} exists; choose another name")


def _checked(source: _Source, digest: Digest) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    with suppress(NotFound):  # found damaged in the meantime, and moved aside
        for chunk in source.chunks(digest):
            hasher.update(chunk)
            yield chunk
    if hasher.hexdigest() != digest.hex:
        raise CorruptData(f"the registry's file {digest} changed while it was backed up; try again")


def _copy_catalog(catalog: Catalog, to: Path) -> None:
    os.close(private_file(to))
    catalog.copy_to(to)


def _index(
    registry: LocalRegistry, snapshot: Path, files: int, size: int, lacking: list[Digest]
) -> BackupIndex:
    return BackupIndex(
        created_at=datetime.now(UTC),
        epoch=registry.catalog.epoch.id,
        catalog=Digest.of_chunks(_read(snapshot)),
        catalog_size=snapshot.stat().st_size,
        files=files,
        total=size,
        lacking=tuple(lacking),
    )


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(private_file(path), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
