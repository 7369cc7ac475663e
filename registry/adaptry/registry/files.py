"""The role of a registry that gives out the bytes of adapters.

Every call names the adapter or base it is for: a digest alone opens nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName

Owner = AdapterName | Digest
"""Whom bytes belong to: an adapter by name, or a base by id."""


class Files(ABC):
    """Whether a file is here, and reading it. Those of a base are read through `Bases`."""

    @abstractmethod
    def has(self, owner: Owner, digest: Digest) -> bool:
        """Whether `owner` already has these bytes. Never tells of another owner's."""

    @abstractmethod
    def read(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        """The file's bytes from `start` on, in pieces of at most 1 MiB, not verified.

        Raises `NotFound`, and `Withdrawn` where they are those of a version that is held back from the
        caller.
        """
