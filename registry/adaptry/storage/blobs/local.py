"""Blobs in a folder: `sha256/ab/<hex>`, and stagings in `tmp/`.

A blob is written, fsynced, verified, renamed into place, and its folder fsynced, in this order, so that after
a power failure a blob is complete or absent. The writer of a staging holds a lock on it that ends with the
process, so clean-up knows which stagings are in use. Needs a POSIX system (flock) and one local file system.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from adaptry.core.digest import Digest
from adaptry.core.errors import FULL_REMEDY, Conflict, NotFound, StorageFull, Unavailable
from adaptry.core.failpoints import reach
from adaptry.core.files.durable import WRITE, ParallelFlush
from adaptry.core.files.early_writeback import EarlyWriteback
from adaptry.core.files.locks import FileLock, locked, try_lock, unlock
from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.storage.blobs.file_chunks import FileChunks
from adaptry.storage.blobs.store import CHUNK, BlobStore, Hashers, StagedBlob, blob_not_found

_HEX = lazy_pattern(r"[0-9a-f]{64}")
_KEY = lazy_pattern(r"[0-9a-f]{32}")
_DAMAGED_FOLDER = "damaged"  # the folder for damaged copies that were moved aside
_MIN_BACKGROUND_FREE = 8 << 20  # bytes
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LocalBlobs(BlobStore):
    """A `BlobStore` in `folder`, which is created if missing; readable by its owner only."""

    def __init__(self, folder: Path | str) -> None:
        super().__init__()
        self.folder = Path(folder)
        self._blobs = self.folder / "sha256"
        self._prefix = f"{self._blobs}{os.sep}"
        self._stagings = self.folder / "tmp"
        self._hold = self.folder / "held.lock"
        self._flush = ParallelFlush()
        for made in (self.folder, self._blobs, self._stagings):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)

    def has(self, digest: Digest) -> bool:
        return os.path.isfile(self._name(digest))  # noqa: PTH113  (here and below: a `Path` takes longer)

    def size(self, digest: Digest) -> int:
        with _absent_is_not_found(digest):
            return os.stat(self._name(digest)).st_size  # noqa: PTH116

    def read(self, digest: Digest, start: int, length: int) -> bytes:
        with _absent_is_not_found(digest):
            descriptor = os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, length, start)
        finally:
            os.close(descriptor)

    def chunks(self, digest: Digest, start: int = 0) -> Iterator[bytes]:
        with _absent_is_not_found(digest):
            return FileChunks(self._path(digest), start)

    def delete(self, digest: Digest) -> None:
        path = self._path(digest)
        with suppress(FileNotFoundError):
            path.unlink()
            _fsync_folder(path.parent)

    def put_all(self, blobs: Mapping[Digest, bytes]) -> None:
        """Waits for the disk only twice, however many blobs there are: for their bytes, and for their
        names.
        """
        with ExitStack() as stack, _writing_to(self.folder):
            staged = {digest: stack.enter_context(self._new_file(data)) for digest, data in blobs.items()}
            reach("blobs.before_fsync")
            self._flush.flush([descriptor for _, descriptor in staged.values()])
            folders = {Path(f"{self._prefix}{fan}") for fan in {digest.hex[:2] for digest in staged}}
            is_new_fan = bool([folder for folder in folders if _create(folder)])
            reach("blobs.before_rename")
            for digest, (path, _) in staged.items():
                os.replace(path, self._name(digest))  # noqa: PTH105
            reach("blobs.after_rename")
            self._flush_folders([*folders, self._blobs] if is_new_fan else folders)

    @contextmanager
    def _new_file(self, data: bytes) -> Iterator[tuple[Path, int]]:
        """A staging with these bytes, locked during the block, and deleted at its end unless renamed."""
        path = self._staging_path(self.new_key())
        descriptor = _lock(path)
        assert descriptor is not None, "its name is private"
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view[:CHUNK]) :]
            yield path, descriptor
        finally:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                path.unlink()

    def _flush_folders(self, folders: Iterable[Path]) -> None:
        with ExitStack() as stack:
            self._flush.flush([stack.enter_context(_opened_folder(folder)) for folder in folders])

    @contextmanager
    def deletion(self) -> Iterator[bool]:
        try:
            lock = FileLock.try_shared(self._hold, mode=0o600)
        except (StorageFull, Unavailable):  # a full disk must not prevent a sweep from freeing space
            yield not self._hold.exists()
            return
        try:
            yield lock is not None
        finally:
            if lock:
                lock.release()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Prevents deletion of blobs by any process during the block. Waits for a running deletion or another
        hold.
        """
        with FileLock.acquire_exclusive(self._hold, mode=0o600):
            yield

    def copy_id(self, digest: Digest) -> str | None:
        try:
            return _copy_id(self._path(digest))
        except FileNotFoundError:
            return None

    def _move_aside(self, digest: Digest, seen: str) -> bool:
        path, folder = self._path(digest), self.folder / _DAMAGED_FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        aside = folder / f"{digest.hex}.{self.new_key()}"
        with _writing_to(self.folder):
            try:
                path.rename(aside)
            except FileNotFoundError:
                return False
            if _copy_id(aside) != seen:  # the blob was stored again while we read the damaged copy
                with suppress(FileExistsError):
                    path.hardlink_to(aside)
                aside.unlink()
                return False
            _fsync_folder(folder)
            _fsync_folder(path.parent)
        return True

    def digests(self) -> Iterator[Digest]:
        for fan in self._blobs.iterdir():
            for path in fan.iterdir():
                if _HEX.fullmatch(path.name):
                    yield Digest(path.name)

    def staging(self, key: str) -> AbstractContextManager[StagedBlob]:
        path = self._staging_path(key)
        descriptor = _lock(path)
        if descriptor is None:
            raise Conflict("another process is sending this file; wait a moment, then continue")
        return _StagedFile(self, key, path, descriptor, self._hashers)

    def link_staged(self, key: str, path: Path) -> bool:
        try:
            path.hardlink_to(self._staging_path(key))
        except OSError:  # on another file system, or one without hard links
            return False
        return True

    def staged_size(self, key: str) -> int:
        try:
            return self._staging_path(key).stat().st_size
        except FileNotFoundError:
            return 0

    def is_held(self, key: str) -> bool:
        try:
            descriptor = os.open(self._staging_path(key), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if not try_lock(descriptor):
            os.close(descriptor)
            return True
        unlock(descriptor)
        return False

    def last_write(self, key: str) -> datetime | None:
        try:
            found = self._staging_path(key).stat()
        except FileNotFoundError:
            return None
        return datetime.fromtimestamp(found.st_mtime, UTC) if found.st_size else None

    def stagings(self) -> Iterator[str]:
        for path in self._stagings.iterdir():
            if _KEY.fullmatch(path.name):
                yield path.name

    def require_room(self, size: int) -> None:
        system = os.statvfs(self._stagings)
        if size > system.f_bavail * system.f_frsize:
            raise _full(self.folder)

    def path_of(self, digest: Digest) -> Path:
        """The blob's path, for readers that map or send files. Raises `NotFound`."""
        path = self._path(digest)
        if not path.is_file():
            raise blob_not_found(digest)
        return path

    @contextmanager
    def descriptor(self, digest: Digest) -> Iterator[int | None]:
        with _absent_is_not_found(digest):
            opened = self._path(digest).open("rb", buffering=0)
        with opened:
            yield opened.fileno()

    def place(self, staged: Path, digest: Digest) -> None:
        """Renames a synced file into place, and syncs the folder."""
        path = self._path(digest)
        is_new_fan = not path.parent.exists()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        reach("blobs.before_rename")
        with _free_in_background(path):
            staged.replace(path)
        reach("blobs.after_rename")
        _fsync_folder(path.parent)
        if is_new_fan:
            _fsync_folder(self._blobs)

    def _path(self, digest: Digest) -> Path:
        return self._blobs / digest.hex[:2] / digest.hex

    def _name(self, digest: Digest) -> str:
        """The path of a blob as a string, without the cost of making a `Path`."""
        return f"{self._prefix}{digest.hex[:2]}{os.sep}{digest.hex}"

    def _staging_path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise NotFound("no such upload")
        return self._stagings / key


class _StagedFile(StagedBlob):
    """A locked file in `tmp/`."""

    def __init__(self, store: LocalBlobs, key: str, path: Path, descriptor: int, hashers: Hashers) -> None:
        super().__init__(key, os.fstat(descriptor).st_size, hashers)
        self._store = store
        self._path = path
        self._descriptor = descriptor
        self._writeback = EarlyWriteback(descriptor)

    @property
    def descriptor(self) -> int | None:
        return self._descriptor

    def opened(self) -> int:
        return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def _write(self, piece: memoryview) -> None:
        position = self.offset
        with _writing_to(self._store.folder):
            while piece:
                written = os.pwrite(self._descriptor, piece[:WRITE], position)
                piece, position = piece[written:], position + written
            self._writeback.add_written(position - self.offset)

    def _settle(self) -> None:
        """Nothing to wait for: writes are synchronous."""
        self._writeback.add_last()

    def _truncate(self, offset: int) -> None:
        os.ftruncate(self._descriptor, offset)

    def _read(self, start: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, start)

    def _publish(self, digest: Digest) -> None:
        reach("blobs.before_fsync")
        with _writing_to(self._store.folder):
            os.fsync(self._descriptor)
            self._store.place(self._path, digest)

    def _discard(self) -> None:
        with suppress(FileNotFoundError):
            self._path.unlink()

    def _release(self) -> None:
        unlock(self._descriptor)


def _lock(path: Path) -> int | None:
    """The file at `path`, created if missing, and locked; None if another process holds it, or has published
    it in the meantime: then it is a blob that must not be written to.
    """
    try:
        return locked(path, lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), wait=False)
    except BlockingIOError:
        return None


def _create(folder: Path) -> bool:
    """Creates the folder if it is missing; returns whether it did."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def _copy_id(path: Path) -> str:
    """Changes if another file replaces this one; stays if bytes are overwritten in place."""
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}"


@contextmanager
def _free_in_background(path: Path) -> Iterator[None]:
    """If the block replaces a large file at `path`, a thread frees the old one: for 200 MB, that takes the
    system 14 ms of processor time.
    """
    try:
        replaced = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        yield
    finally:
        if os.fstat(replaced).st_size < _MIN_BACKGROUND_FREE:
            os.close(replaced)
        else:
            try:
                Thread(target=os.close, args=(replaced,), name="free").start()
            except RuntimeError:  # no more threads
                os.close(replaced)


def _fsync_folder(folder: Path) -> None:
    with _opened_folder(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _full(folder: Path) -> StorageFull:
    return StorageFull(
        f"no space left in {folder}; {FULL_REMEDY}",
        public_message=f"no space left in the registry; {FULL_REMEDY}",
    )


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full(folder) from error
        raise Unavailable(
            f"cannot write to {folder}: {error.strerror}",
            public_message="the registry's files cannot be written; the server's log has the details",
        ) from error


@contextmanager
def _absent_is_not_found(digest: Digest) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise blob_not_found(digest) from None
