"""Which files of an upload are kept, said before their bytes come: the only time that a refusal's text is shown.

What is no part of an adapter is left out, and the upload goes on: a trainer sends its optimizer along with its model. What
would leave the uploader with something else than they meant, a whole model or weights that only a pickle holds, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from adaptry.adapter.formats import FORMATS, WHOLE_MODEL, format_of, is_kept
from adaptry.adapter.listing import why_left_out
from adaptry.errors import InvalidPath, TooLarge, Unsupported
from adaptry.manifest import MAX_FILE, check_path
from adaptry_api.hub.gitignore import Line, is_ignored

_SILENT = frozenset({".gitattributes", ".gitignore"})
"""Left out without a word: they are about git, and nobody misses them."""
_WHOLE_PICKLE = re.compile(r"pytorch_model\b.*\.bin")
"""The weights of a whole model as they were before safetensors; beside an adapter's they are only left out."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A file to come."""

    path: str
    size: int


def left_out(
    files: Sequence[Announced], ignored: Sequence[Line], present: Collection[str], *, with_folders: bool
) -> Mapping[str, str | None]:
    """By path, why a file is left out (None: no reason worth telling); the others are kept.

    `present` are the files that are there already; `with_folders`, there may be adapters in folders, as on a branch.
    Raises `Unsupported`, `TooLarge`.
    """
    coming = {file.path for file in files} | set(present)
    found: dict[str, str | None] = {}
    for file in files:
        if file.path in _SILENT or is_ignored(file.path, ignored):
            found[file.path] = None
            continue
        _refuse(file, coming)
        reason = _reason(file.path, with_folders)
        if reason is not None:
            found[file.path] = reason
    return found


def _refuse(file: Announced, coming: Collection[str]) -> None:
    folder, _, name = file.path.rpartition("/")
    is_whole = WHOLE_MODEL.fullmatch(name) or (_WHOLE_PICKLE.fullmatch(name) and not format_of(coming))
    if not folder and is_whole:
        raise Unsupported(
            f"{file.path} holds the weights of a whole model, and this registry keeps adapters: push what "
            "save_pretrained of the PEFT model writes, or register a base with `adaptry base add DIR --store`"
        )
    for format in FORMATS.values():
        if not folder and name == format.pickle and format.weights not in coming:
            raise Unsupported(
                f"{file.path} is a pickle, which runs code when it is loaded, so it is never stored; {format.remedy}"
            )
    if is_kept(file.path) and file.size > MAX_FILE:
        raise TooLarge(f"{file.path} is {file.size:,} bytes; at most {MAX_FILE >> 30} GiB are stored")


def _reason(path: str, with_folders: bool) -> str | None:
    if not is_kept(path):
        return why_left_out(path)
    try:
        check_path(path)
    except InvalidPath as error:
        return error.message
    if "/" in path and not with_folders:
        return "in a folder, where no file of a version lies; checkpoints go to a branch"
    return None
