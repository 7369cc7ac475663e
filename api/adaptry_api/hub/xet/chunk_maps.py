"""Chunk maps: the chunks of an adapter's files, stored so that clients need not send them again.

A map is written after a file was uploaded through Xet. It is found by the hash of a chunk that a client
queries. It belongs to one adapter and is shown only to its writers. Maps are optional: if one is lost, or was
not used for 30 days, the client sends the chunks. The bytes are those of the stored file; no xorb is kept
(decision 47).
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, NotFound
from adaptry.core.refs import AdapterName
from adaptry_api.hub.xet.chunk_tables import ChunkTable
from adaptry_api.hub.xet.hashes import is_dedup_candidate, text_of
from adaptry_api.hub.xet.stored_xorb import Run, StoredXorb
from adaptry_api.hub.xet.xorb import MAX_XORB_CHUNKS

UNUSED_SECONDS = 30 * 86400.0
_SMALLEST_CHUNK = 4096
"""Minimum average chunk size. Clients cut chunks of at least 8 KiB, except a file's last; smaller ones would
make maps large.
"""
_SHA256 = 32
_PREFIX = 56  # digits of a file's SHA-256 in the name of its map


class ChunkMaps:
    """All maps of a registry, in `folder`, created with the first map. Servers of one registry share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: AdapterName, file: Digest, table: ChunkTable) -> None:
        """Stores the chunks of a file that the adapter has. Does nothing if the disk is full."""
        if len(table) > table.size // _SMALLEST_CHUNK + 1:
            return
        data = bytes.fromhex(file.hex) + table.to_bytes()
        with suppress(OSError):
            _write(self._map(name, file.hex), hashlib.sha256(data).digest() + data)
            for number, (hash, _) in enumerate(table):
                if number == 0 or is_dedup_candidate(hash):
                    _write(self._start(name, text_of(hash)), file.hex.encode())

    def find_file_with_chunk(self, name: AdapterName, hash: str) -> Digest | None:
        """The most recently stored file in which a client would query this chunk."""
        path = self._start(name, hash)
        try:
            found = path.read_text()
            file, _ = self._read(name, found)
            for used in (path, self._map(name, found)):
                os.utime(used)
        except (OSError, ValueError, NotFound):
            return None
        return file

    def iter_xorbs(self, name: AdapterName, file: Digest) -> Iterator[tuple[str, ChunkTable]]:
        """The file's chunks, in xorbs of at most the allowed number: hashes and tables. Raises `NotFound`."""
        _, table = self._read(name, file.hex)
        for number, start in enumerate(range(0, len(table), MAX_XORB_CHUNKS)):
            yield f"{file.hex[:_PREFIX]}{number:08x}", table.slice(start, start + MAX_XORB_CHUNKS)

    def open_xorb(self, name: AdapterName, hash: str) -> StoredXorb:
        """The xorb with this hash from `iter_xorbs`. Raises `NotFound`."""
        file, table = self._read(name, hash)
        start = int(hash[_PREFIX:], 16) * MAX_XORB_CHUNKS
        if start >= len(table):
            raise NotFound(_NONE)
        part = table.slice(start, start + MAX_XORB_CHUNKS)
        return StoredXorb(part, (Run(file, table.start(start), part.size),))

    def forget(self, name: AdapterName, file: Digest) -> None:
        with suppress(OSError):
            self._map(name, file.hex).unlink(missing_ok=True)

    def sweep(self, now: float) -> int:
        """Removes maps that have not been used for too long; returns how many. `now` is a Unix time."""
        gone = 0
        for path in self.folder.glob("*/*/*/*"):
            with suppress(FileNotFoundError):  # removed by another server
                if path.stat().st_mtime < now - UNUSED_SECONDS:
                    path.unlink()
                    gone += 1
        return gone

    def _map(self, name: AdapterName, hex: str) -> Path:
        return self._folder(name) / "files" / hex[:_PREFIX]

    def _start(self, name: AdapterName, hash: str) -> Path:
        return self._folder(name) / "chunks" / hash

    def _folder(self, name: AdapterName) -> Path:
        return self.folder / name.namespace / name.name

    def _read(self, name: AdapterName, hex: str) -> tuple[Digest, ChunkTable]:
        """A map. Raises `NotFound` if it is missing or incomplete, as after a power failure."""
        try:
            data = self._map(name, hex).read_bytes()
        except OSError:
            raise NotFound(_NONE) from None
        checksum, rest = data[:_SHA256], data[_SHA256:]
        if hashlib.sha256(rest).digest() != checksum:
            raise NotFound(_NONE)
        try:
            return Digest(rest[:_SHA256].hex()), ChunkTable.parse(rest[_SHA256:])
        except Invalid:
            raise NotFound(_NONE) from None


_NONE = "no such xorb"


def _write(path: Path, data: bytes) -> None:
    """Writes the map atomically, without syncing: it need not survive a power failure."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{secrets.token_hex(8)}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
