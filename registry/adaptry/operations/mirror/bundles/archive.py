"""A bundle's file format: a plain tar file that every tar program lists, but whose headers are never parsed
here.

The index determines all headers: a reader generates each header and compares it. Any difference in a name,
size, link, owner or padding byte is refused, and so are extra bytes before, between or after. Nothing is
compressed, and nothing is unpacked to disk.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from adaptry.adapters.content import Content, StreamedContent
from adaptry.core.digest import Digest
from adaptry.core.errors import DigestMismatch, InvalidBundle, NotFound, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.mirror.bundles.index import LIMITS, BundleEntry, BundleIndex

INDEX_NAME = "adaptry-bundle.json"
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_CHUNK = 1 << 20


def write_bundle(file: BinaryIO, index: BundleIndex, read: Callable[[BundleEntry], Iterable[bytes]]) -> None:
    """Writes the bundle; `read` yields the bytes of an entry. Raises `DigestMismatch` if they differ."""
    data = index.to_bytes()
    file.write(_header(INDEX_NAME, len(data)) + data + _padding(len(data)))
    for entry in index.entries:
        file.write(_header(entry.name, entry.size))
        hasher, size = hashlib.sha256(), 0
        for chunk in read(entry):
            hasher.update(chunk)
            size += len(chunk)
            file.write(chunk)
        if (size, hasher.hexdigest()) != (entry.size, entry.digest.hex):
            raise DigestMismatch(f"the bytes of {entry.name} do not match its digest; nothing was written")
        file.write(_padding(entry.size))
    file.write(_END)


@dataclass(frozen=True)
class Bundle:
    """An open bundle with a valid index; `verify` checks the rest."""

    file: BinaryIO
    index: BundleIndex
    start: int
    """The position of the first entry's header."""

    @classmethod
    def open(cls, file: BinaryIO) -> Bundle:
        """Reads the index. Raises `InvalidBundle`, `ProtocolMismatch`."""
        first = file.read(_BLOCK)
        size = _claimed_size(first)
        if size > LIMITS.size:
            raise InvalidBundle(
                f"the bundle's index says it is {size:,} bytes; at most {LIMITS.size:,} are read"
            )
        data = file.read(size)
        if len(data) < size or first != _header(INDEX_NAME, size):
            raise InvalidBundle("not a bundle: it does not begin with a valid index, or is truncated in it")
        if file.read(len(_padding(size))) != _padding(size):
            raise InvalidBundle(
                "the bundle is truncated, or has bytes after its index that the index does not list"
            )
        return cls(file, BundleIndex.parse(data), _BLOCK + size + len(_padding(size)))

    def verify(self, progress: Progress = no_progress) -> None:
        """Reads everything once. Raises `InvalidBundle` for any difference from the index."""
        total = sum(entry.size for entry in self.index.entries)
        done = 0
        self.file.seek(self.start)
        for entry in self.index.entries:
            if self.file.read(_BLOCK) != _header(entry.name, entry.size):
                raise InvalidBundle(
                    f"the bundle has other bytes where {entry.name} should begin, or is truncated"
                )
            hasher, left = hashlib.sha256(), entry.size
            while left and (chunk := self.file.read(min(_CHUNK, left))):
                hasher.update(chunk)
                left -= len(chunk)
                done += len(chunk)
                progress("verifying the bundle", done, total)
            if left or hasher.hexdigest() != entry.digest.hex:
                raise InvalidBundle(
                    f"{entry.name} is truncated or its bytes have changed; copy the bundle again"
                )
            if self.file.read(len(_padding(entry.size))) != _padding(entry.size):
                raise InvalidBundle(
                    f"the bundle is truncated, or has bytes after {entry.name} that its index does not list"
                )
        if self.file.read(len(_END) + 1) != _END:
            raise InvalidBundle("the bundle does not end where its index says, or is truncated")

    def chunks(self, entry: BundleEntry, start: int = 0) -> Iterator[bytes]:
        position, end = (
            self._offsets[entry.kind, entry.digest] + start,
            self._offsets[entry.kind, entry.digest] + entry.size,
        )
        while position < end:
            self.file.seek(position)
            chunk = self.file.read(min(_CHUNK, end - position))
            if not chunk:
                raise InvalidBundle(f"{entry.name} became shorter while it was read")
            yield chunk
            position += len(chunk)

    def read_document(self, kind: str, digest: Digest) -> bytes:
        """A manifest or record that the index lists."""
        return b"".join(self.chunks(self._entries[kind, digest]))

    def content(self, files: Iterable[FileEntry]) -> Content:
        return _BundleContent(self, {file.path: self._entries["file", file.sha256] for file in files})

    @cached_property
    def _entries(self) -> Mapping[tuple[str, Digest], BundleEntry]:
        return {(entry.kind, entry.digest): entry for entry in self.index.entries}

    @cached_property
    def _offsets(self) -> Mapping[tuple[str, Digest], int]:
        """The position of each entry's bytes."""
        found: dict[tuple[str, Digest], int] = {}
        at = self.start
        for entry in self.index.entries:
            found[entry.kind, entry.digest] = at + _BLOCK
            at += _BLOCK + entry.size + len(_padding(entry.size))
        return found


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """Opens the bundle in a file. Raises `NotFound`, `Unavailable`, and the errors of `Bundle.open`."""
    if not path.is_file():
        raise NotFound(f"no file {path}")
    try:
        with path.open("rb") as file:
            yield Bundle.open(file)
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror or error}") from error


class _BundleContent(StreamedContent):
    """Files of a bundle, by the names in a manifest."""

    def __init__(self, bundle: Bundle, entries: Mapping[str, BundleEntry]) -> None:
        self._bundle = bundle
        self._entries = entries

    @property
    def sizes(self) -> Mapping[str, int]:
        return {path: entry.size for path, entry in self._entries.items()}

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        return self._bundle.chunks(self._entries[path], start)


def _header(name: str, size: int) -> bytes:
    """The only valid header of an entry with this name and size."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.GNU_FORMAT)


def _claimed_size(first: bytes) -> int:
    """The size in the index's header, which is checked later. Raises `InvalidBundle`."""
    digits = first[124:135]
    if (
        len(first) < _BLOCK
        or not first.startswith(INDEX_NAME.encode())
        or not all(0x30 <= byte <= 0x37 for byte in digits)
    ):
        raise InvalidBundle("not a bundle: it does not begin with a valid index")
    return int(digits, 8)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
