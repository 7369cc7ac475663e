"""`LazyRegistry`: the registry in a folder, opened only as far as a command needs it.

A listing is one or two reads of SQLite, but opening a `LocalRegistry` imports SQLAlchemy, the tables and the
rules of changes, which takes longer than the rest of the command. So the listings of this registry read the
database's file by `statement_texts`; any other method opens the whole registry and calls it there. So does a
listing that finds anything unusual: an adapter that is not there, another order, an error of SQLite.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from adaptry.core.errors import StorageFull, Unavailable
from adaptry.core.files.locks import FileLock
from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterInfo, Page, VersionInfo
from adaptry.storage.catalog import cursors, shown_adapters, shown_versions, statement_texts
from adaptry.storage.catalog.in_use import PRIVATE, in_use_file
from adaptry.storage.catalog.prepared import PreparedReaders, run_select

_WAIT = 30.0  # seconds for another process that holds the database's lock


class LazyRegistry(Registry):
    """For the user of the folder, who reads everything. `open_whole` opens the same registry."""

    def __init__(self, readers: PreparedReaders, lock: FileLock, open_whole: Callable[[], Registry]) -> None:
        self.readers = readers
        self._lock = lock
        self._open_whole = open_whole
        self.adapters: Any = _ListedAdapters(self, "adapters")  # `Any`: has methods that it looks up
        self.versions: Any = _ListedVersions(self, "versions")

    @cached_property
    def whole(self) -> Registry:
        return self._open_whole()

    def __getattr__(self, name: str) -> object:
        """Any other role."""
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
                with self._registry.readers.read() as reads:
                    return shown_adapters.page_by_name(reads, namespace, cursor, limit)
            except sqlite3.Error:
                pass  # the whole registry explains it, or reads a copy
        return self._registry.whole.adapters.list(namespace, cursor, limit, sort=sort, reverse=reverse)


class _ListedVersions(_Role):
    """`Versions`, whose listing of the newest needs only SQLite."""

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
                with self._registry.readers.read() as reads:
                    found = run_select(reads, statement_texts.ADAPTER_OF_NAME, {"name": str(name)})
                    if found:
                        return shown_versions.newest_page(reads, found[0].id, cursor, limit)
            except sqlite3.Error:
                pass  # the whole registry explains it, or reads a copy
        return self._registry.whole.versions.list(name, cursor, limit, sort=sort, reverse=reverse)


def open_lazily(catalog: Path, open_whole: Callable[[], Registry]) -> Registry:
    """The registry whose catalog is that file. It is opened as a whole if the file must be migrated, copied,
    or waited for.
    """
    if not os.access(catalog.parent, os.W_OK):
        return open_whole()
    try:
        lock = FileLock.try_shared(in_use_file(catalog), mode=PRIVATE)
    except (StorageFull, Unavailable):
        return open_whole()
    if lock is None:  # the file is being replaced
        return open_whole()
    readers = PreparedReaders(str(catalog), _WAIT, lambda error: None)
    if _is_current(readers):
        return LazyRegistry(readers, lock, open_whole)
    readers.close()
    lock.release()
    return open_whole()


def _is_current(readers: PreparedReaders) -> bool:
    """Whether the database has the schema to which the texts apply, and a log."""
    try:
        return readers.schema() == statement_texts.schema()
    except sqlite3.Error:
        return False
