"""The lock on an SQLite catalog: shared by processes that have it open, exclusive to replace it."""

from __future__ import annotations

from pathlib import Path

PRIVATE = 0o600
"""The mode of a catalog and of the files beside it."""
IN_USE = ".in-use"


def in_use_file(path: Path) -> Path:
    """The lock's file for the database at `path`."""
    return path.with_name(f"{path.name}{IN_USE}")
