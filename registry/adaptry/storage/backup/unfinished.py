"""Hidden folders for unfinished backups and restores: private, locked by their process, and removed by the
next run if it died.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptry.core.files.durable import write_error
from adaptry.core.files.locks import remove_unlocked, try_lock

_SUFFIX = ".part"


@contextmanager
def private_folder(parent: Path, name: str) -> Iterator[Path]:
    """A private folder `.NAME.….part` in `parent`, removed at the end. Folders of dead processes are removed
    now.

    Raises `StorageFull`, `Unavailable`.
    """
    place = parent / f".{name}.{secrets.token_hex(4)}{_SUFFIX}"
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(parent, name)
        place.mkdir(mode=0o700)
    except OSError as error:
        raise write_error(error, parent) from error
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try_lock(descriptor)
        yield place
    except OSError as error:
        raise write_error(error, parent) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def private_file(path: Path) -> int:
    """A descriptor of a new file that only its owner can read."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _sweep(parent: Path, name: str) -> None:
    for left in parent.glob(f".{name}.*{_SUFFIX}"):
        remove_unlocked(left)
