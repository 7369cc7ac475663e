"""Ownership of the files in a bucket: a registry without history refuses a place that has files.

They belong to another registry, or this one has the wrong catalog; in both cases it would consider them
garbage, and the next sweep would delete them.
"""

from __future__ import annotations

import time

from adaptry.core.errors import Conflict
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.blobs.store import BlobStore
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.factory import CatalogLocation

_TIMEOUT = 2.0
"""Seconds to wait for the rows of another process's first push, which writes small files before its rows."""
_RETRY_DELAY = 0.1


def open_owned(place: CatalogLocation, store: BlobStore) -> Catalog:
    """Opens the catalog to which the files in `store` belong. Creates nothing if they belong to another.

    Raises `Conflict`, `Unavailable`, `ProtocolMismatch`, `StorageFull`.
    """
    if place.is_missing:
        require_bucket_owned(None, store)
    catalog = place.open()
    try:
        require_bucket_owned(catalog, store)
    except BaseException:
        catalog.close()
        raise
    place.store_address()
    return catalog


def require_bucket_owned(catalog: Catalog | None, store: BlobStore) -> None:
    """`catalog` is None before it is created. Raises `Conflict`, `Unavailable`."""
    if isinstance(store, LocalBlobs):
        return
    until: float | None = None
    while _is_untouched(catalog) and next(store.digests(), None) is not None:
        now = time.monotonic()
        until = until or now + _TIMEOUT
        # A listing may take long, so the rows are read again after it.
        if catalog is None or (now >= until and _is_untouched(catalog)):
            raise Conflict(
                "the blob store has files that are not in the catalog: they belong to another registry,"
                " and would be deleted as garbage; pass an empty prefix, or that registry's catalog"
                " (--catalog, ADAPTRY_CATALOG)"
            )
        time.sleep(_RETRY_DELAY)


def _is_untouched(catalog: Catalog | None) -> bool:
    from adaptry.storage.catalog import scan  # needed only for a bucket

    return catalog is None or scan.is_empty(catalog)
