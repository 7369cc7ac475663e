"""Adapters and versions as dataclasses, with the fields that a listing or a pull from a folder needs.

The full records are pydantic models; importing them takes longer than such a command.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Ref

if TYPE_CHECKING:
    from adaptry.core.identity import Visibility


@dataclass(frozen=True, slots=True)
class ListedAdapter:
    """The fields of `AdapterInfo` that a listing shows."""

    name: AdapterName
    description: str
    visibility: Visibility
    updated_at: datetime
    versions: int
    latest: int | None
    downloads: int


@dataclass(frozen=True, slots=True)
class ListedPage:
    """A page of adapters, and the cursor of the next page; None at the end."""

    items: tuple[ListedAdapter, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class FileToPull:
    """A file of a revision, as `FileEntry`: its path, its size in bytes, its digest."""

    path: str
    size: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class VersionToPull:
    """An active version, none of whose files is known to be damaged."""

    name: AdapterName
    number: int
    digest: Digest
    files: tuple[FileToPull, ...]

    @property
    def label(self) -> str:
        """The version's usual name: `acme/tone@3`."""
        return f"{self.name}@{self.number}"

    @property
    def revision_ref(self) -> Ref:
        """The ref that always selects this version."""
        return Ref.of_revision(self.name, self.digest)
