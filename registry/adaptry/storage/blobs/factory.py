"""The blob store of a registry's folder: files in it, or a bucket whose address is stored in it.

The address is stored so that every command on the folder finds the same bytes, whatever its settings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.core.errors import Conflict, Unavailable
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.blobs.store import BlobStore

if TYPE_CHECKING:
    from adaptry.storage.blobs.tiered import TieredBlobs

_FILES = "blobs"
_CACHE = "blob-cache"
_ADDRESS = "blobs.url"

CACHE = 10 << 30
"""Default size in bytes of a bucket's cache on this machine's disk."""


def open_blobs(folder: Path, url: str | None = None, cache: int = CACHE) -> LocalBlobs | TieredBlobs:
    """The store of the registry in `folder`; `url` (`s3://bucket/prefix`) is the place for a new one.

    Raises `Conflict` if the registry has its blobs elsewhere, `Invalid` for a malformed address,
    `Unavailable`.
    """
    known = address_in(folder)
    if url is None and known is None:
        return LocalBlobs(folder / _FILES)
    from adaptry.storage.blobs.s3 import S3Blobs, S3Location
    from adaptry.storage.blobs.tiered import TieredBlobs

    place = S3Location.parse(url or known or "")
    if known is not None:
        before = S3Location.parse(known)
        if (before.bucket, before.prefix) != (place.bucket, place.prefix):
            raise Conflict(
                f"the registry in {folder} keeps its files in {before}, not in {place}; copy them there, "
                f"then write the new address to {folder / _ADDRESS}"
            )
    elif (folder / _FILES / "sha256").is_dir() and any((folder / _FILES / "sha256").iterdir()):
        raise Conflict(
            f"the registry in {folder} keeps its files in {folder / _FILES}; copy that folder's sha256/ to "
            f"{place}/sha256/, then write the address to {folder / _ADDRESS}"
        )
    store = S3Blobs(place)
    store.objects.require_bucket()
    if known is None and url:
        _keep(folder / _ADDRESS, url)
    return TieredBlobs(store, folder / _CACHE, cache)


def open_blobs_for_reading(folder: Path) -> BlobStore:
    """The store of a registry in a read-only folder. Raises `Unavailable`."""
    known = address_in(folder)
    if known is None:
        return LocalBlobs(folder / _FILES)
    from adaptry.storage.blobs.s3 import S3Blobs, S3Location

    return S3Blobs(S3Location.parse(known))


def address_in(folder: Path) -> str | None:
    """The bucket of the registry in `folder`; None if its blobs are files. Raises `Unavailable`."""
    try:
        return (folder / _ADDRESS).read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"cannot read {folder / _ADDRESS}: {error}; correct it or its permissions"
        ) from error


def forget_address(folder: Path) -> None:
    """Removes the address, so that a new registry that was refused can be created elsewhere."""
    (folder / _ADDRESS).unlink(missing_ok=True)


def missing_capabilities(folder: Path, url: str | None = None) -> tuple[str, ...] | None:
    """The features that the blob server lacks, a sentence each; None for files. `url` is the place for a new
    registry's blobs.

    Raises `Unavailable`, `Invalid`.
    """
    known = address_in(folder) or url
    if known is None:
        return None
    from adaptry.storage.blobs.s3 import S3Location
    from adaptry.storage.blobs.s3.capabilities import find_missing_capabilities

    return find_missing_capabilities(S3Location.parse(known))


def _keep(path: Path, url: str) -> None:
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(f"{url}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
