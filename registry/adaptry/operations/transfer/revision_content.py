"""A revision's files in a registry, read without a download; the bytes are not verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptry.adapters.content import StreamedContent
from adaptry.core.manifest import Manifest
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo


class RevisionContent(StreamedContent):
    """The files of a revision, streamed from the registry on demand."""

    def __init__(self, registry: Registry, version: VersionInfo, manifest: Manifest) -> None:
        self._registry = registry
        self._version = version
        self._sizes = {entry.path: entry.size for entry in manifest.files}

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        return self._registry.files.read(self._version.name, self._version.digest, path, start)
