"""The role of a registry that keeps base models: by content, with their weights where they are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from adaptry.adapters.base_record import BaseRecord
from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.manifest import FileEntry
from adaptry.registry.records import BaseEdit, BaseInfo, Page, VersionInfo


class Bases(ABC):
    """The bases that adapters fit."""

    @abstractmethod
    def put(self, record: BaseRecord, names: tuple[str, ...] = ()) -> BaseInfo:
        """Registers a base by content, as a private one; a known id gains names and evidence.

        A private base is seen by whoever holds the namespace of one of its names, an internal one by everyone
        who holds any namespace, a public one by everyone. To others it does not exist.

        Raises `Conflict` where a name is another base's or an adapter's, `Invalid` for a record whose id is
        not that of its contents.
        """

    @abstractmethod
    def get(self, key: str) -> BaseInfo:
        """By name, id, or the beginning of an id (12 digits). Raises `NotFound`, `Conflict` (ambiguous)."""

    @abstractmethod
    def record(self, id: Digest) -> BaseRecord:
        """Everything known about a base but its weights. Raises `NotFound`."""

    @abstractmethod
    def list(self, cursor: str | None = None, limit: int = 50) -> Page[BaseInfo]:
        """Newest first."""

    @abstractmethod
    def of_architecture(self, architecture: Digest) -> tuple[BaseInfo, ...]:
        """The bases of one architecture: the only ones whose weights need comparing."""

    @abstractmethod
    def store(self, id: Digest, files: tuple[FileEntry, ...]) -> BaseInfo:
        """Marks a base's uploaded files as its weights. Raises `NotFound` where a file is missing."""

    @abstractmethod
    def edit(self, id: Digest, edit: BaseEdit) -> BaseInfo:
        """Changes who may see a base. Raises `NotFound`, `PermissionDenied` to all but administrators."""

    @abstractmethod
    def read_file(self, id: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        """As `Files.read`, of a stored base."""


def base_record_or_none(bases: Bases, version: VersionInfo) -> BaseRecord | None:
    """None where the version names no base, or one that is not registered here or not to be seen."""
    if version.base_id is None:
        return None
    try:
        return bases.record(version.base_id)
    except NotFound:
        return None
