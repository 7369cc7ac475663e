"""The role of a registry that manages base models, by content, with their weights if they are stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.core.manifest import FileEntry
    from adaptry.registry.base_info import BaseEdit, BaseInfo
    from adaptry.registry.records import Page, VersionInfo


MAX_KEY = 512
"""Characters of a base's name or id in a request."""


def unknown_base(key: str) -> NotFound:
    """The error for a name or id that no base has."""
    return NotFound(f"no base {key[:200]!a}; `adaptry base ls` shows those that are registered")


class Bases(ABC):
    """The base models of adapters."""

    @abstractmethod
    def put(self, record: BaseRecord, names: tuple[str, ...] = ()) -> BaseInfo:
        """Registers a base by content, as private. If its id is known, adds the names and evidence.

        Callers with the namespace of one of its names see a private base; callers with any namespace see an
        internal one; everyone sees a public one. For others it does not exist.

        Raises `Conflict` if a name belongs to another base or an adapter, and `Invalid` for a record whose id
        does not match its contents.
        """

    @abstractmethod
    def get(self, key: str) -> BaseInfo:
        """A base by name, id, or the beginning of an id (12 digits). Raises `NotFound`, `Conflict`
        (ambiguous).
        """

    @abstractmethod
    def record(self, id: Digest) -> BaseRecord:
        """The record of a base. Raises `NotFound`."""

    @abstractmethod
    def list(self, cursor: str | None = None, limit: int = 50) -> Page[BaseInfo]:
        """Bases that the caller may see, newest first."""

    @abstractmethod
    def of_architecture(self, architecture: Digest) -> tuple[BaseInfo, ...]:
        """The bases with one architecture: only their weights need to be compared."""

    @abstractmethod
    def store(self, id: Digest, files: tuple[FileEntry, ...]) -> BaseInfo:
        """Marks a base's uploaded files as its weights. Raises `NotFound` if a file is missing."""

    @abstractmethod
    def edit(self, id: Digest, edit: BaseEdit) -> BaseInfo:
        """Changes who may see a base. Raises `NotFound`, and `PermissionDenied` for all but
        administrators.
        """

    @abstractmethod
    def read_file(self, id: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        """Like `Files.read`, for a stored base."""


def base_record_or_none(bases: Bases, version: VersionInfo) -> BaseRecord | None:
    """The record of the version's base; None if it names none, or one that is not registered or not
    visible.
    """
    if version.base_id is None:
        return None
    try:
        return bases.record(version.base_id)
    except NotFound:
        return None
