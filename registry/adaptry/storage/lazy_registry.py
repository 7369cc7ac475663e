"""`LazyRegistry`: the registry in a folder, opened only as far as a command needs it.

A listing is one or two reads of SQLite, but opening a `LocalRegistry` imports SQLAlchemy, the tables and the
rules of changes, which takes longer than the rest of the command. So the listings of this registry, and what
a pull reads and counts, use the database's file by `statement_texts`; any other method opens the whole
registry and calls it there. So does one that finds anything unusual: an adapter that is not there, another
order, an error of SQLite. Records, and with them pydantic, are imported only by methods that return them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound, StorageFull, Unavailable
from adaptry.core.files.locks import FileLock
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.interface import Registry
from adaptry.registry.quick_values import ListedPage, VersionToPull
from adaptry.storage.catalog import cursors, statement_texts
from adaptry.storage.catalog.catalog_lock import PRIVATE, catalog_lock_file
from adaptry.storage.catalog.prepared import PreparedReaders, run_prepared, run_select

if TYPE_CHECKING:
    from adaptry.registry.records import AdapterInfo, Page, VersionInfo
    from adaptry.storage.blobs.store import BlobStore

_LOCK_TIMEOUT = 30.0  # seconds for another process that holds the database's lock


class LazyRegistry(Registry):
    """The registry as the folder's user sees it, who may read everything. `open_whole` opens the same
    registry.
    """

    def __init__(
        self, catalog: Path, readers: PreparedReaders, lock: FileLock, open_whole: Callable[[], Registry]
    ) -> None:
        self.catalog = catalog
        self.readers = readers
        self._lock = lock
        self._open_whole = open_whole
        self.adapters: Any = _ListedAdapters(self, "adapters")  # `Any`: has methods that it looks up
        self.versions: Any = _ListedVersions(self, "versions")
        self.files: Any = _ReadFiles(self, "files")

    @cached_property
    def whole(self) -> Registry:
        return self._open_whole()

    @cached_property
    def blobs(self) -> BlobStore:
        from adaptry.storage.blobs.factory import open_blobs

        return open_blobs(self.catalog.parent)

    def try_list(self, namespace: str | None, cursor: str | None, limit: int) -> ListedPage | None:
        from adaptry.storage.catalog import adapter_rows  # not needed by a pull

        cursors.check_limit(limit)
        try:
            with self.readers.read() as reads:
                return adapter_rows.quick_page(reads, namespace, cursor, limit)
        except sqlite3.Error:
            return None

    def try_find(self, ref: Ref) -> VersionToPull | None:
        from adaptry.storage.catalog import quick_versions  # not needed by a listing

        try:
            with self.readers.read() as reads:
                return quick_versions.try_find(reads, ref)
        except sqlite3.Error:
            return None

    def __getattr__(self, name: str) -> object:
        """Any other role of the registry, which is then opened as a whole."""
        if name not in Registry.__annotations__:
            raise AttributeError(f"a registry has no role {name!r}")
        return _Role(self, name)

    def close(self) -> None:
        self.readers.close()
        self._lock.release()
        if "whole" in vars(self):
            self.whole.close()


class _Role:
    """A role of the whole registry, which is opened at the first method."""

    def __init__(self, registry: LazyRegistry, role: str) -> None:
        self._registry = registry
        self._role = role

    def __getattr__(self, name: str) -> object:
        return getattr(getattr(self._registry.whole, self._role), name)


class _ListedAdapters(_Role):
    """`Adapters`, whose listing by name needs only SQLite."""

    def list(
        self,
        namespace: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "name",
        reverse: bool = False,
    ) -> Page[AdapterInfo]:
        if sort == "name" and not reverse:
            cursors.check_limit(limit)
            try:
                from adaptry.storage.catalog import shown_adapters

                with self._registry.readers.read() as reads:
                    return shown_adapters.page_by_name(reads, namespace, cursor, limit)
            except sqlite3.Error:
                pass  # the whole registry explains it, or reads a copy
        return self._registry.whole.adapters.list(namespace, cursor, limit, sort=sort, reverse=reverse)


class _ListedVersions(_Role):
    """`Versions`, whose listing of the newest and count of downloads need only SQLite."""

    def list(
        self,
        name: AdapterName,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "newest",
        reverse: bool = False,
    ) -> Page[VersionInfo]:
        if sort == "newest" and not reverse:
            cursors.check_limit(limit)
            try:
                from adaptry.storage.catalog import shown_versions

                with self._registry.readers.read() as reads:
                    found = run_select(reads, statement_texts.ADAPTER_OF_NAME, {"name": str(name)})
                    if found:
                        return shown_versions.newest_page(reads, found[0].id, cursor, limit)
            except sqlite3.Error:
                pass  # the whole registry explains it, or reads a copy
        return self._registry.whole.versions.list(name, cursor, limit, sort=sort, reverse=reverse)

    def count_download(self, ref: Ref) -> None:
        if not self._count(ref):
            self._registry.whole.versions.count_download(ref)

    def _count(self, ref: Ref) -> bool:
        """Counts as `Catalog.write_nondurable` does; returns whether it did."""
        from adaptry.storage.catalog import quick_versions
        from adaptry.storage.catalog.disk_reserve import is_nearly_full

        try:
            with self._registry.readers.read() as reads:
                changes = quick_versions.count_statements(reads, ref)
            if not changes or is_nearly_full(self._registry.catalog.parent):
                return False
            with closing(_writer(self._registry.catalog)) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement, key in changes:
                    run_prepared(connection, statement, {"key": key, "count": 1})
        except sqlite3.Error:
            return False
        return True


class _ReadFiles(_Role):
    """`Files`, whose reading of a version's file needs only SQLite and the blobs."""

    def read(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        version = self._registry.try_find(Ref.of_revision(name, revision))
        for file in version.files if version else ():
            if file.path == path and 0 <= start <= file.size:
                try:
                    return self._registry.blobs.chunks(file.sha256, start)
                except NotFound:
                    break  # the whole registry explains it
        return self._registry.whole.files.read(name, revision, path, start)


def open_lazily(catalog: Path, open_whole: Callable[[], Registry]) -> Registry:
    """The registry whose catalog is that file. It is opened as a whole if the file must be migrated, copied,
    or waited for.
    """
    if not os.access(catalog.parent, os.W_OK):
        return open_whole()
    try:
        lock = FileLock.try_shared(catalog_lock_file(catalog), mode=PRIVATE)
    except (StorageFull, Unavailable):
        return open_whole()
    if lock is None:  # the file is being replaced
        return open_whole()
    readers = PreparedReaders(str(catalog), _LOCK_TIMEOUT, lambda error: None)
    if _is_current(readers):
        return LazyRegistry(catalog, readers, lock, open_whole)
    readers.close()
    lock.release()
    return open_whole()


def _is_current(readers: PreparedReaders) -> bool:
    """Whether the database has the schema to which the texts apply, and a log."""
    try:
        return readers.schema() == statement_texts.schema()
    except sqlite3.Error:
        return False


def _writer(catalog: Path) -> sqlite3.Connection:
    """A connection whose last commits may be lost in a power failure; older ones are not."""
    connection = sqlite3.connect(f"file:{quote(str(catalog))}?mode=rw", uri=True, timeout=_LOCK_TIMEOUT)
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection
