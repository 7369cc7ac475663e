"""A backup in one file: a plain tar of the index, the catalog, and the files in the order of their digests.

Each header follows from the entries before it. The reader computes and compares it, so no entry can have an
arbitrary name.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidBackup

INDEX, CATALOG = "adaptry-backup.json", "catalog.sqlite"
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_CHUNK = 1 << 20


def name_of(digest: Digest) -> str:
    return f"files/{digest.hex}"


def write(file: BinaryIO, name: str, size: int, chunks: Iterable[bytes]) -> None:
    file.write(_header(name, size))
    for chunk in chunks:
        file.write(chunk)
    file.write(bytes(-size % _BLOCK))


def end(file: BinaryIO) -> None:
    file.write(_END)


def read(file: BinaryIO, name: str, size: int) -> Iterator[bytes]:
    """The bytes of the expected next entry. Raises `InvalidBackup` for any other."""
    if file.read(_BLOCK) != _header(name, size):
        raise InvalidBackup(f"the backup has another entry where {name} should be, or is truncated")
    left = size
    while left and (chunk := file.read(min(_CHUNK, left))):
        left -= len(chunk)
        yield chunk
    padding = -size % _BLOCK
    if left or file.read(padding) != bytes(padding):
        raise InvalidBackup(f"the backup is truncated or was changed in {name}; use another backup")


def read_index(file: BinaryIO, maximum: int) -> bytes:
    """The first entry, whose size is known only from its header."""
    header = file.read(_BLOCK)
    digits = header[124:135]
    if len(header) < _BLOCK or not all(0x30 <= byte <= 0x37 for byte in digits):
        raise InvalidBackup("not a backup: it does not begin with an index that `adaptry backup` wrote")
    size = int(digits, 8)
    if size > maximum or header != _header(INDEX, size):
        raise InvalidBackup("not a backup: it does not begin with an index that `adaptry backup` wrote")
    file.seek(0)
    return b"".join(read(file, INDEX, size))


def require_end(file: BinaryIO) -> None:
    if file.read(len(_END) + 1) != _END:
        raise InvalidBackup("the backup does not end where its catalog says, or is truncated")


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, 0
    return info.tobuf(tarfile.GNU_FORMAT)
