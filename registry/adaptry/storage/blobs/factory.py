"""Which store a registry's folder has: files in it, or a bucket whose address is kept in it.

The address is kept so that every command on the folder finds the same bytes, whoever started it with which
settings.
"""

from __future__ import annotations

import os
from pathlib import Path

from adaptry.core.errors import Conflict, Unavailable
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.blobs.store import BlobStore
from adaptry.storage.blobs.tiered import TieredBlobs

_FILES = "blobs"
_CACHE = "blob-cache"
_ADDRESS = "blobs.url"

CACHE = 10 << 30
"""Bytes of a bucket that are kept on this machine's disk, unless someone says otherwise."""


def open_blobs(folder: Path, url: str | None = None, cache: int = CACHE) -> LocalBlobs | TieredBlobs:
    """The store of the registry in `folder`; `url` (`s3://bucket/prefix`) says where that of a new one is.

    Raises `Conflict` where the registry has its blobs elsewhere, `Invalid` for what is no address,
    `Unavailable`.
    """
    known = address_in(folder)
    if url is None and known is None:
        return LocalBlobs(folder / _FILES)
    from adaptry.storage.blobs.s3 import S3Blobs, S3Location

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
    """The store of a registry whose folder may only be read. Raises `Unavailable`."""
    known = address_in(folder)
    if known is None:
        return LocalBlobs(folder / _FILES)
    from adaptry.storage.blobs.s3 import S3Blobs, S3Location

    return S3Blobs(S3Location.parse(known))


def address_in(folder: Path) -> str | None:
    """Where the registry in `folder` keeps its blobs, if not in files. Raises `Unavailable`."""
    try:
        return (folder / _ADDRESS).read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot read {folder / _ADDRESS}: {error}; mend it, or its permissions") from error


def forget_address(folder: Path) -> None:
    """A new registry that was refused may be given another place."""
    (folder / _ADDRESS).unlink(missing_ok=True)


def missing_capabilities(folder: Path, url: str | None = None) -> tuple[str, ...] | None:
    """What the server of the registry's blobs lacks, a sentence each; None for files. `url` is where those of
    a new one would be.

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
