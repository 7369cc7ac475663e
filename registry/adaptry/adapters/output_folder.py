"""Writes an adapter into a folder, completely or not at all; never overwrites files that do not belong to an
adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from adaptry.core.errors import Conflict
from adaptry.core.files import atomic_dir


class InputFiles(Protocol):
    """Files from which a result is made: those of an adapter (`Content`) or of a base (`HfCheckpoint`)."""

    def check_unchanged(self) -> None:
        """Raises `Invalid` if a file was written to after it was read."""


@contextmanager
def output_folder(
    target: Path, *, replace: bool = False, sources: Iterable[InputFiles] = ()
) -> Iterator[Path]:
    """A folder to fill from `sources`. It becomes `target` when the block ends; it is removed if the block
    raises, or if a file of the sources changed during it.

    Raises `Conflict` if something is at `target` already, unless it is an empty folder, or an adapter's
    folder and `replace` is set; `StorageFull`; `Unavailable` if `target` cannot be written; `Invalid` for
    a changed source.
    """
    made = atomic_dir.atomic_directory(target, replace=replace, require_replaceable=_require_adapter)
    with made as folder:
        yield folder
        for source in sources:
            source.check_unchanged()


def require_free(target: Path, *, replace: bool = False) -> None:
    """Raises `Conflict` if `output_folder` would refuse `target`."""
    atomic_dir.require_free(target, replace=replace, require_replaceable=_require_adapter)


def _require_adapter(target: Path, may_replace: bool) -> None:
    from adaptry.adapters.formats import detect_format  # most targets are new

    if detect_format(path.name for path in target.iterdir()) is None:
        raise Conflict(f"{target} holds files that are not an adapter's; choose another place")
    if not may_replace:
        raise Conflict(f"{target} holds another adapter; choose another place, or replace it with --force")
