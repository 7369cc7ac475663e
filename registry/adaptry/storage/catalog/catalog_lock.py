"""The lock on an SQLite catalog: held shared by processes that have it open, exclusively to replace it."""

from __future__ import annotations

from pathlib import Path

PRIVATE = 0o600
"""The mode of a catalog and of the files beside it."""
IN_USE = ".in-use"


def catalog_lock_file(path: Path) -> Path:
    """The lock file of the database at `path`."""
    return path.with_name(f"{path.name}{IN_USE}")
