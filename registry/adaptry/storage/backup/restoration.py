"""Restoring a backup: everything is first copied and verified in a hidden folder; renaming the catalog
completes it.

Until that rename, the existing registry is unchanged. Files are moved before the catalog that names them;
extra files do no harm.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, DigestMismatch, InvalidBackup, Unavailable
from adaptry.core.failpoints import reach
from adaptry.core.files.durable import flush_folder
from adaptry.core.files.locks import FileLock
from adaptry.core.identity import LOCAL
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.storage.backup.index import BackupIndex
from adaptry.storage.backup.needed_files import iter_needed_files
from adaptry.storage.backup.reader import Backup, open_backup
from adaptry.storage.backup.replaced_catalog import ReplacedCatalog, read_replaced_catalog
from adaptry.storage.backup.unfinished import private_file, private_folder
from adaptry.storage.blobs.factory import address_in as blobs_in
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.catalog import adapters, epochs, events, factory, recall_claims, worker_reports
from adaptry.storage.catalog.catalog_lock import catalog_lock_file
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.forgotten_recalls import quarantine_forgotten

SKIP = 1000
"""How many numbers of each adapter are skipped if the numbers given after the backup are unknown."""
_BLOBS = "blobs"
_ADMIN_TOKEN = "admin-token"  # the server's name for it; the server creates a new one if it is missing
_ALLOWED_NAMES = frozenset({_BLOBS, _ADMIN_TOKEN, "catalog.sqlite.in-use", "catalog.sqlite.opening"})


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """The restored backup; the epoch that began; `held_back`: versions withdrawn after the backup."""

    index: BackupIndex
    epoch: str
    held_back: tuple[str, ...] = ()


def check(path: Path, snapshot: str | None = None, progress: Progress = no_progress) -> BackupIndex:
    """Reads a backup from end to end without restoring it. Raises the errors of `restore`."""
    with (
        tempfile.TemporaryDirectory(prefix="adaptry-backup-") as work,
        open_backup(path, snapshot) as backup,
    ):
        catalog = _take_catalog(backup, Path(work))
        for digest, size, chunks in _files(backup, catalog, progress):
            if Digest.of_chunks(chunks) != digest:
                raise _changed(digest, size)
        backup.finish()
        return backup.index


def restore(
    path: Path,
    folder: Path,
    *,
    snapshot: str | None = None,
    replace: bool = False,
    keep_tokens: bool = False,
    skip: int = SKIP,
    progress: Progress = no_progress,
) -> RestoreResult:
    """Restores the registry in `folder` to the state at the backup, in a new epoch.

    `folder` must be empty or missing; with `replace` it may hold a registry that no process has open. `skip`
    is how many numbers of each adapter are skipped if the replaced catalog is unreadable.

    Raises `InvalidBackup` before anything is changed, `Conflict` (there is a registry, or it is in use),
    `CheckFailed` (its rows or files are elsewhere), `NotFound`, `ProtocolMismatch`, `StorageFull`,
    `Unavailable`.
    """
    folder = folder.absolute()
    _refuse_other_stores(folder)
    with open_backup(path, snapshot) as backup, _place_for(folder, replace) as part:
        catalog = _take_catalog(backup, part)
        store = LocalBlobs(part / _BLOBS)
        for digest, size, chunks in _files(backup, catalog, progress):
            try:
                store.put(digest, chunks)
            except DigestMismatch:
                raise _changed(digest, size) from None
        backup.finish()
        reach("restore.after_copy")
        with _alone(folder):
            known = (
                read_replaced_catalog(folder / factory.FILE, part)
                if (folder / factory.FILE).exists()
                else None
            )
            restored = _begin_epoch(catalog, backup.index, known, keep_tokens, skip)
            _flush_catalog(catalog)
            _move_files(part / _BLOBS, folder / _BLOBS)
            reach("restore.before_rename")
            if not keep_tokens:
                (folder / _ADMIN_TOKEN).unlink(missing_ok=True)
            catalog.replace(folder / factory.FILE)
            flush_folder(folder)
        return restored


def begin_epoch(registry: LocalRegistry, *, keep_tokens: bool = False, skip: int = SKIP) -> str:
    """Begins a new epoch in a registry whose rows were restored by other means, such as pg_restore; returns
    its id.

    Its servers must be stopped, since they read the epoch only once. Raises `Unavailable`.
    """
    now = datetime.now(UTC)
    with registry.catalog.write() as tx:
        epoch = epochs.begin(tx, now, skip=skip, keep_tokens=keep_tokens)
        events.record(tx, "registry.restored", at=now, by=LOCAL.name, detail={"epoch": epoch.id})
        return epoch.id


@contextmanager
def _place_for(folder: Path, replace: bool) -> Iterator[Path]:
    """A private folder beside what is restored. Raises `Conflict` unless `folder` may be written."""
    _require_place(folder, replace)
    with private_folder(folder, "restore") as part:
        yield part


def _refuse_other_stores(folder: Path) -> None:
    if factory.address_in(folder) or blobs_in(folder):
        raise CheckFailed(
            f"the registry in {folder} has its rows in PostgreSQL or its files in a bucket: restore those"
            " with pg_restore and from the bucket's versions (docs/deploying.md, Back up and restore)"
        )


def _require_place(folder: Path, replace: bool) -> None:
    if (folder / factory.FILE).exists():
        if not replace:
            raise Conflict(
                f"there is a registry in {folder}; restore into another folder, or replace it with --replace"
            )
        return
    others = (
        [path.name for path in folder.iterdir() if path.name not in _ALLOWED_NAMES] if folder.is_dir() else []
    )
    if folder.exists() and not folder.is_dir():
        raise Conflict(f"{folder} is a file; choose another place")
    if any(not name.startswith(".restore.") for name in others):
        raise Conflict(f"{folder} holds other files; choose an empty folder")


def _take_catalog(backup: Backup, part: Path) -> Path:
    """The backup's catalog, copied and compared with its digest."""
    path = part / factory.FILE
    with os.fdopen(private_file(path), "wb") as file:

        def kept() -> Iterator[bytes]:
            for chunk in backup.catalog():
                file.write(chunk)
                yield chunk

        if Digest.of_chunks(kept()) != backup.index.catalog:
            raise InvalidBackup("the backup's catalog was changed, damaged or truncated; use another backup")
    return path


def _files(
    backup: Backup, catalog: Path, progress: Progress
) -> Iterator[tuple[Digest, int, Iterator[bytes]]]:
    lacking, done, count = set(backup.index.lacking), 0, 0
    for digest, size in iter_needed_files(catalog):
        if digest in lacking:
            continue
        yield digest, size, backup.file(digest, size)
        done, count = done + size, count + 1
        progress("restoring", done, max(done, backup.index.total))
    if (count, done) != (backup.index.files, backup.index.total):
        raise InvalidBackup("the backup's index and its catalog name different files; use another backup")


def _changed(digest: Digest, size: int) -> InvalidBackup:
    return InvalidBackup(
        f"the backup's file {digest} of {size:,} bytes was changed, damaged or truncated; use another backup,"
        " or back up again with --verify"
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Locks the registry during the block; other processes wait to open it. Raises `Conflict`."""
    catalog = folder / factory.FILE
    lock = FileLock.try_exclusive(catalog_lock_file(catalog), mode=0o600)
    if lock is None:
        raise Conflict(
            f"a server, a runner or another command has the registry in {folder} open; stop it,"
            " then restore again"
        )
    with lock:
        if catalog.exists():
            _checkpoint_log(catalog)
        yield


def _checkpoint_log(catalog: Path) -> None:
    """Checkpoints the old catalog's log and removes it: SQLite would apply a log to the new catalog."""
    try:
        with closing(sqlite3.connect(catalog, timeout=0)) as database:
            database.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Conflict(f"another program has {catalog} open; stop it, then restore again") from error
    for end in ("-wal", "-shm"):  # files beside a damaged catalog
        catalog.with_name(f"{catalog.name}{end}").unlink(missing_ok=True)


def _begin_epoch(
    path: Path, index: BackupIndex, known: ReplacedCatalog | None, keep_tokens: bool, skip: int
) -> RestoreResult:
    now = datetime.now(UTC)
    with closing(Catalog.open(path)) as catalog, catalog.write() as tx:
        epoch = epochs.begin(
            tx,
            now,
            above=known.generation if known else 0,
            after_event=known.event if known else 0,
            skip=0 if known else skip,
            keep_tokens=keep_tokens,
        )
        if known:
            for name, number in known.numbers.items():
                adapters.reserve_number(tx, AdapterName.parse(name), number, now)
        events.record(
            tx,
            "registry.restored",
            at=now,
            by=LOCAL.name,
            detail={"backup": f"{index.created_at:%FT%TZ}", "epoch": epoch.id},
        )
        held = _quarantine_lost_recalls(tx, known, now) if known else ()
        return RestoreResult(index, epoch.id, held)


def _quarantine_lost_recalls(tx: Transaction, known: ReplacedCatalog, now: datetime) -> tuple[str, ...]:
    """The versions that are withdrawn in the replaced catalog but not in the backup."""
    held: list[str] = []
    for (text, hex_), state in known.recalls.items():
        name, digest = AdapterName.parse(text), Digest(hex_)
        found = worker_reports.versions_of(tx, [(name, digest)], LOCAL).get((name, digest))
        if found and found.state == state:
            continue
        recall_claims.record_claim(tx, name, digest, state, "the replaced catalog", now)
        if found and quarantine_forgotten(tx, found.version_key, name, digest, now):
            held.append(f"{name}@{digest.brief}")
    return tuple(held)


def _flush_catalog(catalog: Path) -> None:
    """Writes the catalog as one file, synced to disk."""
    with closing(sqlite3.connect(catalog)) as database:
        if database.execute("PRAGMA journal_mode=DELETE").fetchone()[0] != "delete":
            raise Unavailable("the restored catalog could not be written as one file; try again")
    descriptor = os.open(catalog, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_files(source: Path, target: Path) -> None:
    """Moves each file into place, replacing damaged ones; then syncs their folders."""
    store = LocalBlobs(target)
    for fan in sorted((source / "sha256").iterdir()):
        into = target / "sha256" / fan.name
        into.mkdir(mode=0o700, exist_ok=True)
        for path in fan.iterdir():
            path.replace(into / path.name)
        flush_folder(into)
    flush_folder(target / "sha256")
    flush_folder(store.folder)
