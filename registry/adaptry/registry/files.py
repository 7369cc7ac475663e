"""The role of a registry that serves the bytes of adapters.

Every call names an adapter or base: a digest alone gives no access.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName

Owner = AdapterName | Digest
"""The owner of bytes: an adapter by name, or a base by id."""


FileReader = Callable[[str, int], Iterator[bytes]]
"""Reads a file of one revision, by its path, from a position on; raises the errors of `Files.read`."""


class Files(ABC):
    """Checks for files, and reads them. Files of a base are read through `Bases`."""

    @abstractmethod
    def has(self, owner: Owner, digest: Digest) -> bool:
        """Whether `owner` already has these bytes. Never reveals those of another owner."""

    @abstractmethod
    def read(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        """The file's bytes from `start` on, in pieces of at most 1 MiB, not verified.

        Raises `NotFound`, and `Withdrawn` if the version's files are withheld from the caller.
        """

    def readers(self, revisions: Sequence[tuple[AdapterName, Digest]]) -> tuple[FileReader, ...]:
        """A reader for each revision. A registry on this machine decides on access to all of them in this
        call, but raises errors only when a file is read.
        """
        return tuple(partial(self.read, name, revision) for name, revision in revisions)
