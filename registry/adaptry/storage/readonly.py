"""A registry in a read-only folder: a read-only mount, another user's folder, a backup, a full disk.

SQLite needs to write beside a database to read it safely, so the catalog is read from a copy that is made
when the registry is opened; files are read in place. Changes are refused, and downloads are not counted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from adaptry.core.errors import ReadOnly, StorageFull, Unavailable
from adaptry.core.files.durable import write_error
from adaptry.core.files.locks import remove_unlocked, try_lock
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Ref
from adaptry.storage.blobs.factory import open_blobs_for_reading
from adaptry.storage.catalog.database import Catalog, Result, Transaction
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.versions import LocalVersions

_PREFIX = "adaptry-catalog-"
_MEMORY = Path("/dev/shm")  # where Linux keeps files in memory


def open_for_reading(
    folder: Path, catalog: Path, identity: Identity, *, until_writable: bool = False
) -> LocalRegistry:
    """A snapshot of the registry in `folder`. Changes raise `ReadOnly`; with `until_writable`, a change first
    tries to open the catalog itself, and uses it from then on.

    The copy of its catalog is in the temporary folder, or in memory if that is full. Raises `Unavailable`,
    `StorageFull` if neither has space, `ProtocolMismatch`.
    """

    def original() -> Catalog:
        if until_writable:
            return Catalog.open(catalog)
        raise ReadOnly(
            f"the registry in {folder} is read-only; make the folder writable, or use another registry"
        )

    failure: Unavailable | None = None
    for place in _temporary_folders():
        copy: Path | None = None
        try:
            _remove_stale_copies(place)
            copy = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            _copy(catalog, copy / catalog.name)
            opened = _ReadCatalog(copy / catalog.name, original)
        except (OSError, StorageFull) as error:
            if copy is not None:
                shutil.rmtree(copy, ignore_errors=True)
            failure = write_error(error, place) if isinstance(error, OSError) else error
            if not isinstance(failure, StorageFull):
                raise failure from error
        else:
            registry = LocalRegistry(
                RegistryContext(opened, open_blobs_for_reading(folder), identity, folder=folder)
            )
            registry.versions = _ReadOnlyVersions(registry.context)
            return registry
    raise failure or StorageFull("no space left for a temporary file; free some space, or set TMPDIR")


def _temporary_folders() -> Iterator[Path]:
    """The folders for a copy. Python finds no temporary folder if all are full."""
    with contextlib.suppress(FileNotFoundError):
        yield Path(tempfile.gettempdir())
    if _MEMORY.is_dir():
        yield _MEMORY


class _ReadCatalog(Catalog):
    """A copy of a catalog that is deleted when its last reader closes it. The first write uses the catalog
    that `original` opens.
    """

    def __init__(self, copy: Path, original: Callable[[], Catalog]) -> None:
        super().__init__(f"sqlite:///{copy}")
        self._original = original
        self._opened: Catalog | None = None
        held = os.open(copy.parent, os.O_RDONLY | os.O_CLOEXEC)
        try_lock(held)
        self._remove_stale_copies = weakref.finalize(self, _remove_copy, copy.parent, held)

    def require_writable(self) -> None:
        if self._opened is None:
            self._opened = self._original()
            self._database, self.notifier = self._opened._database, self._opened.notifier

    @contextmanager
    def _transaction(self, *, is_durable: bool) -> Iterator[Transaction]:
        self.require_writable()
        with super()._transaction(is_durable=is_durable) as session:
            yield session

    def write_each(self, changes: Sequence[Callable[[Transaction], Result]]) -> list[Result | Exception]:
        self.require_writable()
        return super().write_each(changes)

    def close(self) -> None:
        super().close()
        self._remove_stale_copies()


@dataclass(frozen=True)
class _ReadOnlyVersions(LocalVersions):
    """The versions of a read-only registry. Downloads are not counted, so that a pull works."""

    def count_download(self, ref: Ref) -> None:
        pass


def _remove_copy(copy: Path, held: int) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    os.close(held)


def _remove_stale_copies(place: Path) -> None:
    """Removes the copies of processes that were killed: those older than a minute without a lock."""
    for left in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or deleted
            if left.is_symlink() or left.stat().st_mtime > time.time() - 60:
                continue
            remove_unlocked(left)


def _copy(catalog: Path, target: Path) -> None:
    """A snapshot of a catalog. A writer on another mount has its shared memory there, and SQLite's locks
    work.
    """
    if catalog.with_name(f"{catalog.name}-shm").exists():
        with contextlib.suppress(sqlite3.OperationalError):  # left by a dead writer
            source = sqlite3.connect(f"file:{quote(str(catalog))}?mode=ro", uri=True)
            with closing(source), closing(sqlite3.connect(target)) as copy:
                source.backup(copy)
            return
    shutil.copyfile(catalog, target)
    log = catalog.with_name(f"{catalog.name}-wal")
    if log.is_file():  # changes that are not checkpointed yet
        shutil.copyfile(log, target.with_name(f"{target.name}-wal"))
