"""Folders that appear complete or not at all.

A folder is filled under a hidden name next to its target, flushed to disk, and renamed. A reader sees the old
folder, no folder, or the new one. The next `atomic_directory` for the same target removes hidden folders that
killed processes left behind, since no process holds a lock on them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from adaptry.core.errors import Conflict
from adaptry.core.files.durable import flush_files, flush_folder, write_error
from adaptry.core.files.locks import remove_unlocked, try_lock

_SUFFIX = ".part"


RequireReplaceable = Callable[[Path, bool], None]
"""A function that is called with a folder that is not empty and with `may_replace`. It raises `Conflict`
if the folder must not be replaced.
"""


def require_empty(target: Path, may_replace: bool) -> None:
    """Raises `Conflict`: never replace a folder that has files in it."""
    raise Conflict(f"{target} is not empty; choose another folder")


@contextlib.contextmanager
def atomic_directory(
    target: Path, *, replace: bool = False, require_replaceable: RequireReplaceable = require_empty
) -> Iterator[Path]:
    """Yields a folder to fill. It becomes `target` when the block ends; if the block raises, it is removed.

    Raises `Conflict` if something is at `target` already, unless it is an empty folder, or
    `require_replaceable` accepts it; `StorageFull`; `Unavailable` if `target` cannot be written.
    """
    target = target.absolute()
    require_free(target, replace=replace, require_replaceable=require_replaceable)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        place = _make_hidden_folder(target)
    except OSError as error:
        raise write_error(error, target) from error
    with _locked(place):
        try:
            yield place
            flush_files(place)
            require_free(target, replace=replace, require_replaceable=require_replaceable)
            _publish(place, target)
        except OSError as error:
            raise write_error(error, target) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)


def require_free(
    target: Path, *, replace: bool = False, require_replaceable: RequireReplaceable = require_empty
) -> None:
    """Raises `Conflict` if `atomic_directory` would refuse `target`."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir():
        raise Conflict(f"{target} exists and is not a folder; choose another place")
    if target.samefile(Path.cwd()):
        raise Conflict(
            f"{target} is the current folder, which cannot be replaced; choose one inside it or next to it"
        )
    if any(target.iterdir()):
        require_replaceable(target, replace)


def _publish(place: Path, target: Path) -> None:
    if not target.exists():
        place.rename(target)
    elif not any(target.iterdir()):
        target.rmdir()
        place.rename(target)
    else:
        _swap(place, target)
    flush_folder(target.parent)


def _swap(place: Path, target: Path) -> None:
    """Replaces `target` by `place`; puts the old folder back if that fails."""
    aside = _make_hidden_folder(target) / target.name
    target.rename(aside)
    try:
        place.rename(target)
    except OSError:
        aside.rename(target)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)


def _make_hidden_folder(target: Path) -> Path:
    """Makes a hidden folder next to `target`, with the mode of `mkdir` (`mkdtemp` restricts it)."""
    place = target.parent / f".{target.name}.{secrets.token_hex(4)}{_SUFFIX}"
    place.mkdir()
    return place


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Locks `place` for as long as this process lives. (Windows cannot lock a folder.)"""
    if os.name == "nt":
        yield
        return
    descriptor = os.open(place, os.O_RDONLY)
    try:
        try_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _sweep(target: Path) -> None:
    """Removes what killed processes left next to `target`."""
    if os.name == "nt":
        return
    for left in target.parent.glob(f".{target.name}.*{_SUFFIX}"):
        remove_unlocked(left)
