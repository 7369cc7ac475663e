"""A revision's files where they are, in a registry: bytes stream from it when asked, unverified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptry.adapter.content import Content
from adaptry.manifest import Manifest
from adaptry.records import VersionInfo
from adaptry.registry import Registry


class RevisionContent(Content):
    """The files of a revision where they are: bytes stream from the registry when asked."""

    def __init__(self, registry: Registry, version: VersionInfo, manifest: Manifest) -> None:
        self._registry = registry
        self._version = version
        self._sizes = {entry.path: entry.size for entry in manifest.files}

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def read(self, path: str, offset: int, length: int) -> bytes:
        found = bytearray()
        for chunk in self.chunks(path, offset):
            found += chunk
            if len(found) >= length:
                break
        return bytes(found[:length])

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        return self._registry.read_file(self._version.name, self._version.digest, path, start)
