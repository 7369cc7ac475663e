"""Damages stored files as a failing disk would."""

from __future__ import annotations

from adaptry.core.digest import Digest
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.local import LocalRegistry


def change_last_byte(registry: LocalRegistry, digest: Digest) -> None:
    """Changes the last byte of a stored file. The registry's blobs must be in a folder."""
    assert isinstance(registry.blobs, LocalBlobs)
    path = registry.blobs.path_of(digest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
