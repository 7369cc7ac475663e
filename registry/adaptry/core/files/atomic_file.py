"""Files that appear complete or not at all; a killed process leaves nothing behind.

On Linux, on most file systems, a file has no name while it is written, so the system removes it with its
process. Elsewhere it has a hidden name next to its target, and a lock; the next writer of the same file
removes hidden files that no process holds a lock on.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adaptry.core.failpoints import reach
from adaptry.core.files.durable import flush_folder, write_error
from adaptry.core.files.locks import try_lock

_SUFFIX = ".part"
_OPEN = Path("/proc/self/fd")


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[BinaryIO]:
    """Yields a file to write. It replaces `target` when the block ends; if the block raises, it is removed.

    It is flushed to disk before it gets its name. Raises `StorageFull`; `Unavailable` if the folder cannot
    be written to.
    """
    target = target.absolute()
    try:
        _remove_stale_files(target)
        place, descriptor = _begun(target)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                reach("atomic_file.before_rename")
                if not place.exists():
                    _name(file.fileno(), place)
                if os.name == "nt":
                    file.close()  # Windows cannot rename an open file
                place.replace(target)
                flush_folder(target.parent)
        finally:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(error, target) from error


def _remove_stale_files(target: Path) -> None:
    """Removes unfinished files of writers of `target` that were killed. Does nothing on Windows."""
    if os.name == "nt":
        return
    for left in target.parent.glob(f".{glob.escape(target.name)}.*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # another user's, a folder, or already gone
            descriptor = os.open(left, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if try_lock(descriptor):
                    left.unlink()
            finally:
                os.close(descriptor)


def _begun(target: Path) -> tuple[Path, int]:
    """Opens and locks a new file. Returns the hidden name that it has, or will have, and its descriptor."""
    while True:
        place = target.parent / f".{target.name}.{secrets.token_hex(4)}{_SUFFIX}"
        descriptor = _open_unnamed(target.parent)
        is_named = descriptor is None
        if descriptor is None:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        if os.name == "nt" or (try_lock(descriptor) and (not is_named or place.exists())):
            return place, descriptor
        os.close(descriptor)  # another writer removed it in between


def _open_unnamed(folder: Path) -> int | None:
    """A file without a name in `folder`; None if the system or the file system does not support this."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not _OPEN.is_dir():
        return None
    with contextlib.suppress(OSError):
        return os.open(folder, flag | os.O_RDWR | os.O_CLOEXEC, 0o666)
    return None


def _name(descriptor: int, place: Path) -> None:
    """Gives an unnamed file a name: linkat(2) with the descriptor's /proc entry, as open(2) describes."""
    folder = os.open(_OPEN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.link(str(descriptor), place, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)
