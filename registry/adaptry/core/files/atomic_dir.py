"""Folders that appear whole or not at all.

A folder is filled beside its place under a hidden name, flushed to disk, and renamed. Whoever looks sees
the old folder, or none, or the new one. What a killed process left behind is removed by the next landing
at the same place; a lock on the hidden folder tells the living from the dead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from adaptry.adapters.formats import format_of
from adaptry.core.errors import Conflict, StorageFull, Unavailable

_SUFFIX = ".part"


@contextlib.contextmanager
def landing(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends; if the block raises, no trace is left.

    Raises `Conflict` if there is something at `target` already, unless it is an empty folder, or `replace` is set
    and it is an adapter's folder; `StorageFull`; `Unavailable` where the place cannot be written.
    """
    target = target.absolute()
    check_free(target, replace=replace)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        place = _beside(target)
    except OSError as error:
        raise explained(error, target) from error
    with _held(place):
        try:
            yield place
            flush_files(place)
            _publish(place, target, replace)
        except OSError as error:
            raise explained(error, target) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)


def check_free(target: Path, *, replace: bool = False) -> None:
    """Raises `Conflict` where a landing at `target` would be refused."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir():
        raise Conflict(f"{target} is there and is not a folder; choose another place")
    if target.samefile(Path.cwd()):
        raise Conflict(
            f"{target} is the current folder, which cannot be replaced; name one inside or beside it"
        )
    if not any(target.iterdir()):
        return
    if format_of(path.name for path in target.iterdir()) is None:
        raise Conflict(f"{target} holds files that are not an adapter's; choose another place")
    if not replace:
        raise Conflict(f"{target} holds another adapter; choose another place, or replace it with --force")


def explained(error: OSError, target: Path) -> StorageFull | Unavailable:
    """An error of the file system as ours, naming the place."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"no space left for {target}; nothing was kept. Free some space and try again")
    return Unavailable(f"cannot write {target}: {error.strerror or error}")


def flush_folder(folder: Path) -> None:
    """Makes the names in `folder` durable. Windows has no such call: there the rename is what we get."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_files(place: Path) -> None:
    """Makes every file and folder under `place` durable."""
    for path in sorted(place.rglob("*")):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        else:
            flush_folder(path)
    flush_folder(place)


def _publish(place: Path, target: Path, replace: bool) -> None:
    check_free(target, replace=replace)
    if not target.exists():
        place.rename(target)
    elif not any(target.iterdir()):
        target.rmdir()
        place.rename(target)
    else:
        _swap(place, target)
    flush_folder(target.parent)


def _swap(place: Path, target: Path) -> None:
    """The old folder steps aside and comes back if the new one cannot take its place."""
    aside = _beside(target) / target.name
    target.rename(aside)
    try:
        place.rename(target)
    except OSError:
        aside.rename(target)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)


def _beside(target: Path) -> Path:
    """A new folder with the mode a plain `mkdir` gives, which `mkdtemp` does not."""
    place = target.parent / f".{target.name}.{secrets.token_hex(4)}{_SUFFIX}"
    place.mkdir()
    return place


@contextlib.contextmanager
def _held(place: Path) -> Iterator[None]:
    """Says that `place` is in use for as long as this process lives. (Windows cannot lock a folder.)"""
    if os.name == "nt":
        yield
        return
    descriptor = os.open(place, os.O_RDONLY)
    try:
        takes(descriptor)
        yield
    finally:
        os.close(descriptor)


def takes(descriptor: int) -> bool:
    """Locks an open folder for as long as this process has it open; False where another has. Not on Windows."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(target: Path) -> None:
    """Removes what landings at `target` left that died before their end."""
    if os.name == "nt":
        return
    for left in target.parent.glob(f".{target.name}.*{_SUFFIX}"):
        if left.is_symlink() or not left.is_dir():
            continue
        descriptor = os.open(left, os.O_RDONLY)
        try:
            if takes(descriptor):
                shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(descriptor)
