"""Which files of an upload are kept, said before their bytes come: the only time that a refusal's text is shown.

What is no part of an adapter is left out, and the upload goes on: a trainer sends its optimizer along with its model. What
would leave the uploader with something else than they meant, a whole model or weights that only a pickle holds, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from adaptry.adapter.formats import FORMATS, WHOLE_MODEL, format_of, is_kept
from adaptry.adapter.images import MAX_IMAGES, is_image, why_not_kept
from adaptry.adapter.listing import why_left_out
from adaptry.errors import InvalidPath, TooLarge, Unsupported
from adaptry.manifest import MAX_DEPTH, MAX_FILE, MAX_PATH, check_path, is_too_deep
from adaptry_api.hub.gitignore import Line, is_ignored

_SILENT = frozenset({".gitattributes", ".gitignore"})
"""Left out without a word: they are about git, and nobody misses them."""
_MOST_NAMES = 5
BATCH = 256
"""Files that a client announces at once, if it has so many."""
_PLAIN = re.compile(r"[^\\/\x00-\x1f]+(?:/[^\\/\x00-\x1f]+)*")
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
    images = {path for path in present if is_image(path)}
    for file in files:
        if file.path in _SILENT or is_ignored(file.path, ignored):
            found[file.path] = None
            continue
        _refuse(file, coming, with_folders=with_folders)
        reason = _reason(file, with_folders)
        if reason is None and is_image(file.path):
            images.add(file.path)
            reason = f"more than {MAX_IMAGES} images" if len(images) > MAX_IMAGES else None
        if reason is not None:
            found[file.path] = reason
    return found


def require_something(
    files: Sequence[Announced], unwanted: Mapping[str, str | None], *, goes_on: bool = False
) -> None:
    """Raises `Unsupported` where all of an upload is left out: clients would call that a success and commit nothing.

    A batch that is one of many may be left out whole, as others are kept: a client announces `BATCH` files at a time, and
    `goes_on` says that such a batch came before this one.
    """
    missed = {path: reason for path, reason in unwanted.items() if path not in _SILENT}
    if not missed or goes_on or len(files) >= BATCH or len(unwanted) < len({file.path for file in files}):
        return
    by_reason: dict[str, list[str]] = {}
    for path, reason in missed.items():
        by_reason.setdefault(reason or "a .gitignore leaves it out", []).append(path)
    said = "; ".join(f"{names_in(paths)} ({reason})" for reason, paths in by_reason.items())
    raise Unsupported(
        f"nothing of this upload would be stored: {said}. An adapter is what save_pretrained of the PEFT model writes"
    )


def names_in(paths: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(paths[:_MOST_NAMES])
    return f"{shown} and {len(paths) - _MOST_NAMES} more" if len(paths) > _MOST_NAMES else shown


def is_left_out(path: str, *, with_folders: bool) -> bool:
    """Whether a file that is committed all the same is left out then: the JavaScript client sends what it was told to
    ignore. Of a path that leads out of its folder nothing is said; it is refused."""
    if not _PLAIN.fullmatch(path) or ".." in path.split("/"):
        return False
    return path in _SILENT or _reason(Announced(path, 0), with_folders) is not None


def _refuse(file: Announced, coming: Collection[str], *, with_folders: bool) -> None:
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
    if not is_kept(file.path):
        return
    if file.size > MAX_FILE:
        raise TooLarge(f"{file.path} is {file.size:,} bytes; at most {MAX_FILE >> 30} GiB are stored")
    if with_folders and is_too_deep(file.path):
        raise TooLarge(
            f"{file.path[:200]} lies too deep: a path on a branch has at most {MAX_DEPTH} segments and {MAX_PATH} "
            "characters; upload from a folder further down"
        )


def _reason(file: Announced, with_folders: bool) -> str | None:
    path = file.path
    if not is_kept(path):
        return why_left_out(path)
    try:
        check_path(path)
    except InvalidPath as error:
        return error.message
    if is_image(path) and (reason := why_not_kept(file.size)):
        return reason
    if "/" in path and not with_folders:
        return "in a folder, where no file of a version lies; checkpoints go to a branch"
    return None
