"""`connect`: opens a registry by its address. The embedded one needs no server: SQLite and files in a
folder.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.core.errors import Conflict, Invalid, NotFound, StorageFull, Unavailable
from adaptry.core.refs import is_folder
from adaptry.core.settings import AdaptrySettings, data_folder, is_server
from adaptry.registry.interface import Registry

if TYPE_CHECKING:
    from adaptry.adapters.inspection.process import InspectionProcess
    from adaptry.core.identity import Identity
    from adaptry.storage.blobs.local import LocalBlobs
    from adaptry.storage.blobs.tiered import TieredBlobs
    from adaptry.storage.local import LocalRegistry

_CATALOG = "catalog.sqlite"
_ADDRESS = "catalog.url"  # as in `catalog.factory`, which is not imported just to check for a file
_BUCKET = "blobs.url"  # as in `blobs.factory`


def connect(
    where: str | None = None,
    settings: AdaptrySettings | None = None,
    *,
    create_missing: bool = True,
    for_cleanup: bool = False,
    is_lazy: bool = False,
    inspection: InspectionProcess | None = None,
) -> Registry:
    """The registry at `where`: a server's URL or a folder; None means that of `settings`, else the user's
    own.

    `settings` are read from the environment unless given; without a token in them, a server gets the one that
    `adaptry login` stored. A folder without a registry becomes one, unless `create_missing` is False: then
    `NotFound` is raised. `for_cleanup`, `inspection`: as in `open_local`. `is_lazy`: the registry in a
    folder is a `LazyRegistry`, for a command that lists or pulls. Raises `Invalid` (neither URL nor folder),
    `Unavailable`, `ProtocolMismatch`.
    """
    settings = settings or AdaptrySettings.from_env()
    where = where or settings.registry
    if where is not None and is_server(where):
        if inspection:
            inspection.end()
        from adaptry.core.credentials import token_for
        from adaptry.registry.http import HttpRegistry

        return HttpRegistry(where, settings.token or token_for(where), settings.ca_bundle, settings.proxy)
    folder = resolve_folder(where) if where is not None else data_folder()
    if where is not None and not create_missing and not is_registry(folder):
        raise NotFound(
            f"no registry in {folder}; pass the URL or folder of an existing one, or create one with a push"
        )
    open_whole = partial(
        open_local,
        folder,
        catalog=settings.catalog,
        blobs=settings.blobs,
        for_cleanup=for_cleanup,
        inspection=inspection,
    )
    is_elsewhere = settings.catalog or settings.blobs or (folder / _ADDRESS).exists()
    if not is_lazy or is_elsewhere or (folder / _BUCKET).exists() or not is_registry(folder):
        return open_whole()
    from adaptry.storage.lazy_registry import open_lazily

    return open_lazily(folder / _CATALOG, open_whole)


def resolve_folder(where: str) -> Path:
    """The folder that a location names, unless it is a server's address.

    Raises `Invalid` for a probable typing error (`htps://host`, `host:8750`), which would silently become a
    new, empty registry.
    """
    if is_folder(where):
        return Path(where).expanduser()
    if "://" in where:
        raise Invalid(f"not a registry: {where[:200]!r} (a server's address begins with http:// or https://)")
    raise Invalid(
        f"not a registry: {where[:200]!r} (write ./{where[:200]} for a folder, or http://{where[:200]} for a"
        " server)"
    )


def is_registry(folder: Path) -> bool:
    """Whether there is a registry in the folder."""
    return (folder / _CATALOG).is_file() or (folder / _ADDRESS).is_file()


def open_local(
    folder: Path | str,
    identity: Identity | None = None,
    *,
    require_known_base: bool = False,
    catalog: str | None = None,
    blobs: str | None = None,
    blob_cache: int | None = None,
    presign_uploads: bool = False,
    for_cleanup: bool = False,
    is_serving: bool = False,
    inspection: InspectionProcess | None = None,
) -> LocalRegistry:
    """Opens the embedded registry in `folder`: its blobs, its catalog, then whether they belong together.

    A missing one is created. `identity` is whose rights its methods apply, by default those of the folder's
    user, who may do everything. `catalog` is the PostgreSQL database for a new registry's rows, else SQLite;
    `blobs` (`s3://bucket/prefix`) is the bucket for its files. The folder stores both addresses. Up to
    `blob_cache` bytes of the bucket's files are cached on this machine; with `presign_uploads`, clients
    upload large files directly to the bucket. In a read-only folder the registry is read-only. On a full disk
    it is read-only until a write fits, with two exceptions: `for_cleanup` (to free space) may use the disk
    reserve, and `is_serving` raises an error, since a server would continue with an old copy.
    `inspection` is a process that was started for a push. Raises `Unavailable` (missing place, not durable),
    `StorageFull`, `ProtocolMismatch` (created by a newer adaptry), `Invalid` (malformed database address),
    `Conflict` (the registry has another catalog, or the bucket another registry's files).
    """
    from adaptry.adapters.inspection.inspector import Inspector
    from adaptry.core.identity import LOCAL
    from adaptry.storage.blobs.factory import forget_address
    from adaptry.storage.catalog import disk_reserve
    from adaptry.storage.catalog.factory import locate_catalog
    from adaptry.storage.local import LocalRegistry, RegistryContext
    from adaptry.storage.ownership import open_owned

    identity = identity or LOCAL
    folder = Path(folder).expanduser().absolute()
    is_new = not is_registry(folder)
    if not is_new and not (folder / _ADDRESS).is_file() and not os.access(folder, os.W_OK):
        return _open_for_reading(folder, identity)
    store = _open_blobs(folder, blobs, blob_cache)
    is_reserve_used = for_cleanup and disk_reserve.release_reserve(folder)
    try:
        opened = open_owned(locate_catalog(folder, catalog), store)
    except Conflict:
        if is_new:
            forget_address(folder)  # a refused address must not stay in the folder
        raise
    except StorageFull:
        if is_new or is_serving:
            raise
        return _open_for_reading(folder, identity, until_writable=True)
    if (folder / _CATALOG).is_file():
        disk_reserve.allocate_reserve(folder)
    context = RegistryContext(
        opened,
        store,
        identity,
        require_known_base=require_known_base,
        presign_uploads=presign_uploads,
        folder=folder,
        inspector=Inspector(started=inspection),
    )
    if is_reserve_used:
        context.after_close = partial(disk_reserve.restore_reserve, folder)
    return LocalRegistry(context)


def _open_blobs(folder: Path, url: str | None, cache: int | None) -> LocalBlobs | TieredBlobs:
    """The store of the registry in `folder`, which is created if missing."""
    from adaptry.storage.blobs.factory import CACHE, open_blobs

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open_blobs(folder, url, CACHE if cache is None else cache)
    except OSError as error:
        raise Unavailable(
            f"cannot create a registry in {folder}: {error.strerror}; choose another folder"
        ) from error


def _open_for_reading(folder: Path, identity: Identity, *, until_writable: bool = False) -> LocalRegistry:
    from adaptry.storage.readonly import open_for_reading

    return open_for_reading(folder, folder / _CATALOG, identity, until_writable=until_writable)


def open_in_memory() -> LocalRegistry:
    """An empty temporary registry in memory, to compare with a registry that does not exist yet."""
    from adaptry.storage.blobs.memory import MemoryBlobs
    from adaptry.storage.catalog.database import Catalog
    from adaptry.storage.local import LocalRegistry, RegistryContext

    return LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs()))


def catalog_of(folder: Path) -> str | None:
    """The address of the database with the registry's rows, without password; None for a file in the
    folder.
    """
    from adaptry.storage.catalog.factory import address_in

    return address_in(folder)


def missing_blob_capabilities(folder: Path, url: str | None = None) -> tuple[str, ...] | None:
    """The features that the blob server lacks, a sentence each; None for files. `url` is the place for a new
    registry's blobs.

    Raises `Unavailable`, `Invalid`.
    """
    from adaptry.storage.blobs.factory import missing_capabilities

    return missing_capabilities(folder, url)
