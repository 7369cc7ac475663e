"""Searches a folder tree for adapters: the folders, and the single files, that may hold one.

Only names and the headers of GGUF files are read. Folders whose names begin with a dot and folders of
programs are left out. Links to folders are not followed, so loops are harmless; the files of a Hugging Face
cache are links, and are read by `folder_listing`. Every folder that was not searched is listed with the
reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from adaptry.adapters.formats import CONFIG, FORMATS, detect_format, is_weights
from adaptry.adapters.gguf_text import read_gguf_text
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

MAX_DEPTH = 16
"""Levels of folders below the given one that are searched."""
_PROGRAMS = frozenset(["__pycache__", "node_modules", "site-packages"])
_WEIGHTS = frozenset(format.weights for format in FORMATS.values())
_SIGNS = frozenset([CONFIG, *_WEIGHTS, *(format.pickle for format in FORMATS.values() if format.pickle)]) - {
    "*.safetensors"
}
_PART = lazy_pattern(r"adapter_model(?:-\d+-of-\d+)?\.(?:safetensors|bin)(?:\..+)?")
"""A part of an adapter, or an incomplete download."""
_UNFINISHED = lazy_pattern(r"tmp-checkpoint-\d+")
"""Where some versions of Transformers (4.36 to 4.38) write a checkpoint before they rename it."""
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class AdapterLocation:
    """A folder that may hold an adapter; with `file`, only that file in it."""

    folder: Path
    file: str | None = None

    @property
    def path(self) -> Path:
        return self.folder / self.file if self.file else self.folder


@dataclass(frozen=True, slots=True)
class UnsearchedFolder:
    """A folder that was not searched, or a file of weights that was not read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class FolderTree:
    """The places in a tree, in natural order (`checkpoint-2` before `checkpoint-10`)."""

    places: tuple[AdapterLocation, ...]
    unsearched: tuple[UnsearchedFolder, ...] = ()


def search_tree(root: Path) -> FolderTree:
    """Searches `root` and the folders in it. Unreadable folders are listed and raise no error."""
    places: list[AdapterLocation] = []
    unsearched: list[UnsearchedFolder] = []
    waiting = [(root, 0)]
    while waiting:
        folder, depth = waiting.pop()
        if depth > MAX_DEPTH:
            unsearched.append(UnsearchedFolder(folder, f"deeper than {MAX_DEPTH} folders"))
            continue
        names: set[str] = set()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not _is_folder(entry):
                        names.add(entry.name)
                    elif entry.is_symlink():
                        unsearched.append(UnsearchedFolder(Path(entry.path), "a link, which is not followed"))
                    elif _UNFINISHED.fullmatch(entry.name):
                        unsearched.append(UnsearchedFolder(Path(entry.path), "an unfinished checkpoint"))
                    elif not (entry.name.startswith(".") or entry.name in _PROGRAMS):
                        waiting.append((Path(entry.path), depth + 1))
        except OSError as error:
            unsearched.append(UnsearchedFolder(folder, error.strerror or str(error)))
        places += _places_in(folder, names)
        unsearched += _other_weights(folder, names)
    return FolderTree(
        tuple(sorted(places, key=lambda place: natural_key(place.path))),
        tuple(sorted(unsearched, key=lambda each: natural_key(each.path))),
    )


def natural_key(path: Path) -> tuple[tuple[str | int, ...], ...]:
    """A sort key that compares numbers in names as numbers."""
    return tuple(
        tuple(int(part) if number % 2 else part for number, part in enumerate(_DIGITS.split(name)))
        for name in path.parts
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to a place that may not be read
        return False


def _places_in(folder: Path, names: set[str]) -> Iterator[AdapterLocation]:
    """The adapters that the files with these names may contain. A file with a name that the user chose is a
    separate adapter, unless the folder is the adapter of a tool that uses other names.
    """
    format = detect_format(names)
    if (
        (format is not None and format.weights in _WEIGHTS)
        or names & _SIGNS
        or any(_PART.fullmatch(name) for name in names)
    ):
        yield AdapterLocation(folder)
    else:
        yield from (AdapterLocation(folder, name) for name in names if is_weights(name))
    for name in names:
        if name.endswith(".gguf") and _is_gguf_adapter(folder / name):
            yield AdapterLocation(folder, name)


def _other_weights(folder: Path, names: set[str]) -> Iterator[UnsearchedFolder]:
    """Weights under other names in the folder of an adapter, such as MLX's earlier steps, which its config
    does not name.
    """
    format = detect_format(names)
    if format is None or format.weights not in _WEIGHTS:
        return
    for name in names:
        if is_weights(name) and not format.includes(name) and not _PART.fullmatch(name):
            yield UnsearchedFolder(folder / name, "other weights in the folder of an adapter")


def _is_gguf_adapter(file: Path) -> bool:
    try:  # opening a pipe would wait for its writer
        return file.is_file() and read_gguf_text(file, "general.type") == "adapter"
    except OSError:
        return False
