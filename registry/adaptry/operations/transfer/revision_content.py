"""A revision's files in a registry, read without a download; the bytes are not verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from adaptry.adapters.content import StreamedContent
from adaptry.core.manifest import Manifest
from adaptry.registry.files import FileReader
from adaptry.registry.interface import Registry

if TYPE_CHECKING:
    from adaptry.registry.records import VersionDetail, VersionInfo


class RevisionContent(StreamedContent):
    """The files of a revision, streamed from the registry on demand."""

    def __init__(
        self,
        registry: Registry,
        version: VersionInfo,
        manifest: Manifest,
        read: FileReader | None = None,
    ) -> None:
        """`read`: the reader of the revision's files, if the caller has one."""
        self._read = read or partial(registry.files.read, version.name, version.digest)
        self._sizes = {entry.path: entry.size for entry in manifest.files}

    @classmethod
    def of_all(cls, registry: Registry, details: Sequence[VersionDetail]) -> list[RevisionContent]:
        """The contents of several versions, whose files are opened together (`Files.readers`)."""
        readers = registry.files.readers([(each.version.name, each.version.digest) for each in details])
        return [
            cls(registry, each.version, each.manifest, read)
            for each, read in zip(details, readers, strict=True)
        ]

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def chunks(self, path: str, start: int = 0) -> Iterator[bytes]:
        return self._read(path, start)
