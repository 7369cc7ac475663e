"""The layout of stacks in a cache: adapters computed from several versions, each in a folder named by its
key.

stacks/<key>/adapter    the files of the stack
stacks/<key>/about.json the versions that it was made from, and each file's size and change time
stacks/.<key>.lease     locked by each process that uses the stack
stacks/.<key>.fill      locked by the process that makes it
stacks/.<key>.size      the bytes reserved for it while it is being made
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ValidationError

from adaptry.core.digest import Digest
from adaptry.core.files.locks import FileLock

METADATA_FILE = "about.json"
_RESERVED = ".size"


class StackMetadata(BaseModel):
    """The metadata of a stack's folder: the versions that it was made from, and each file's size in bytes and
    change time in nanoseconds.
    """

    parts: tuple[Digest, ...]
    stamps: dict[str, tuple[int, int]]

    @property
    def size(self) -> int:
        return sum(size for size, _ in self.stamps.values())


class StackLayout:
    """The stacks of the cache in `root`."""

    def __init__(self, root: Path) -> None:
        self.root: Path = root / "stacks"

    def folder(self, key: str) -> Path:
        return self.root / key

    def lease_file(self, key: str) -> Path:
        return self.root / f".{key}.lease"

    def fill_lock(self, key: str) -> Path:
        return self.root / f".{key}.fill"

    def reserve(self, key: str, size: int) -> None:
        """Counts `size` bytes for a stack that is about to be made, until `end_reservation`."""
        (self.root / f".{key}{_RESERVED}").write_text(str(size))

    def end_reservation(self, key: str) -> None:
        (self.root / f".{key}{_RESERVED}").unlink(missing_ok=True)

    def read(self, key: str) -> StackMetadata | None:
        """The metadata; None if the stack is missing or incomplete."""
        with contextlib.suppress(OSError, ValidationError):
            return StackMetadata.model_validate_json((self.folder(key) / METADATA_FILE).read_bytes())
        return None

    def all(self) -> Iterator[tuple[str, StackMetadata]]:
        for name in self._names():
            if about := self.read(name):
                yield name, about

    def sizes(self) -> tuple[int, ...]:
        """The size in bytes of each stack, including those that are being made."""
        made = {key: about.size for key, about in self.all()}
        return tuple((dict(self._reserved()) | made).values())

    def discard_unused(self, part: Digest | None = None) -> None:
        """Deletes the stacks that no process uses; only those with this part, if one is given."""
        for key, about in list(self.all()):
            if part is None or part in about.parts:
                self.discard_if_unused(key)

    def discard_if_unused(self, key: str) -> None:
        if lease := FileLock.try_exclusive(self.lease_file(key)):
            shutil.rmtree(self.folder(key), ignore_errors=True)
            lease.remove()

    def sweep(self) -> None:
        """Deletes stacks and reservations that killed processes left."""
        self.discard_unused()
        for key, _ in list(self._reserved()):
            if filling := FileLock.try_exclusive(self.fill_lock(key)):
                self.end_reservation(key)
                filling.remove()

    def _reserved(self) -> Iterator[tuple[str, int]]:
        for name in self._names():
            if name.startswith(".") and name.endswith(_RESERVED):
                with contextlib.suppress(OSError, ValueError):
                    yield name[1 : -len(_RESERVED)], int((self.root / name).read_text() or "0")

    def _names(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return [path.name for path in self.root.iterdir()]
        return []
