"""A registry in a folder that may only be read: a read-only mount, someone else's folder, a backup.

SQLite needs to write beside a database to read it safely, so the catalog is read from a copy that is taken when
the registry is opened; files are read where they are. Whatever would change something is `Unavailable`, and
downloads are not counted.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from adaptry.blobs.choosing import open_blobs_for_reading
from adaptry.catalog.database import Catalog, Transaction
from adaptry.errors import Unavailable
from adaptry.identity import Identity
from adaptry.landing import explained
from adaptry.local import LocalRegistry
from adaptry.refs import Ref


def open_for_reading(folder: Path, catalog: Path, identity: Identity) -> LocalRegistry:
    """The registry in `folder`, as it is now. Raises `Unavailable`, `Incompatible`."""
    copy = Path(tempfile.mkdtemp(prefix="adaptry-catalog-"))
    try:
        _copy(catalog, copy / catalog.name)
        return _Reading(_ReadCatalog(folder, copy / catalog.name), open_blobs_for_reading(folder), identity)
    except OSError as error:
        raise explained(error, copy) from error


class _ReadCatalog(Catalog):
    """A copy of `folder`'s catalog, which goes away with whoever reads it."""

    def __init__(self, folder: Path, copy: Path) -> None:
        super().__init__(f"sqlite:///{copy}")
        self.folder = folder
        self._tidy = weakref.finalize(self, shutil.rmtree, copy.parent, ignore_errors=True)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        raise Unavailable(
            f"the registry in {self.folder} can only be read here; make the folder writable, or use another registry"
        )
        yield  # a generator, as what it overrides

    def close(self) -> None:
        super().close()
        self._tidy()


class _Reading(LocalRegistry):
    """A pull works where it cannot be counted."""

    def count_download(self, ref: Ref) -> None:
        pass


def _copy(catalog: Path, target: Path) -> None:
    """One moment of a catalog. A writer that lives elsewhere has its shared memory there, and SQLite's locks hold."""
    if catalog.with_name(f"{catalog.name}-shm").exists():
        with contextlib.suppress(sqlite3.OperationalError):  # left behind by a writer that died
            source = sqlite3.connect(f"file:{quote(str(catalog))}?mode=ro", uri=True)
            with closing(source), closing(sqlite3.connect(target)) as copy:
                source.backup(copy)
            return
    shutil.copyfile(catalog, target)
    log = catalog.with_name(f"{catalog.name}-wal")
    if log.is_file():  # what is not worked in yet
        shutil.copyfile(log, target.with_name(f"{target.name}-wal"))
