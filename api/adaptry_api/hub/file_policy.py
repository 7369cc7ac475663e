"""Decides which files of an upload are kept, before their bytes arrive: clients show the text of a refusal
only then.

Files that are not part of an adapter are left out, and the upload continues: trainers send their optimizer
state with the model. An upload is refused if, without the files left out, it would not be what the uploader
intended: if it is a whole model, or its weights exist only in a pickle.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from adaptry.adapters.folder_listing import exclusion_reason
from adaptry.adapters.formats import FORMATS, WHOLE_MODEL, detect_format, is_adapter_file, is_weights
from adaptry.adapters.images import MAX_IMAGES, image_exclusion_reason, is_image
from adaptry.core.errors import InvalidPath, TooLarge, Unsupported
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import MAX_FILE
from adaptry.core.tree_paths import MAX_DEPTH, MAX_PATH, check_path, is_too_deep
from adaptry_api.hub.addresses import stored_path
from adaptry_api.hub.gitignore import is_ignored

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IN_FOLDER = "in a folder, and a version has no folders; commit checkpoints to a branch"
_SILENT = frozenset({".gitattributes", ".gitignore"})
"""Skipped without a warning: they matter only to git."""
_MAX_NAMES = 5
_DRIVE = re.compile(r"[A-Za-z]:")
_WHOLE_PICKLE = re.compile(r"pytorch_model\b.*\.bin")
"""The weights of a whole model in formats older than safetensors; beside an adapter's weights, they are left
out.
"""


@dataclass(frozen=True, slots=True)
class AnnouncedFile:
    """A file to be uploaded."""

    path: str
    size: int


class UploadFilter:
    """Decides by name and size which files of one upload are kept: one rule for announcements and commits.

    `present` are the existing paths, whose images count; `with_folders`: adapters may be in folders, as on a
    branch.
    """

    def __init__(
        self, present: Collection[str], ignored: GitIgnoreSpec | None = None, *, with_folders: bool
    ) -> None:
        self._present = frozenset(present)
        self._ignored = ignored
        self._with_folders = with_folders
        self._images = {path for path in present if is_image(path)}
        self._files: list[AnnouncedFile] = []
        self.excluded: dict[str, str | None] = {}
        """By path, why a file is left out; None if that needs no warning."""

    def keeps(self, file: AnnouncedFile) -> bool:
        """Adds a file. Raises `HttpProblem` (422) for a path that leads out of the upload's folder."""
        if _escapes_folder(file.path):
            stored_path(file.path)
        self._files.append(file)
        if file.path in _SILENT or (self._ignored and is_ignored(file.path, self._ignored)):
            self.excluded[file.path] = None
        elif reason := self._reason(file):
            self.excluded[file.path] = reason
        return file.path not in self.excluded

    def require_no_whole_model(self) -> None:
        """Called after the last file. Raises `Unsupported` and `TooLarge` if a file that the upload needs
        cannot be stored.
        """
        coming = {file.path for file in self._files} | self._present
        for file in self._files:
            if self.excluded.get(file.path, "") is not None:
                _refuse(file, coming, with_folders=self._with_folders)

    def _reason(self, file: AnnouncedFile) -> str | None:
        reason = _reason(file, self._with_folders)
        if reason is None and is_image(file.path):
            self._images.add(file.path)
            if len(self._images) > MAX_IMAGES:
                self._images.remove(file.path)
                reason = f"more than {MAX_IMAGES} images"
        return reason


def excluded_files(
    files: Sequence[AnnouncedFile],
    ignored: GitIgnoreSpec | None,
    present: Collection[str],
    *,
    with_folders: bool,
) -> Mapping[str, str | None]:
    """Like `UploadFilter.excluded`, for all files of an announcement. Raises the errors of
    `UploadFilter`.
    """
    chosen = UploadFilter(present, ignored, with_folders=with_folders)
    for file in files:
        chosen.keeps(file)
    chosen.require_no_whole_model()
    return chosen.excluded


def require_some_kept(files: Collection[str], unwanted: Mapping[str, str | None]) -> None:
    """Raises `Unsupported` if all files are left out: clients would report success without committing
    anything.

    An upload that contains only git's own files does not fail.
    """
    if unwanted.keys() <= _SILENT or set(files) - unwanted.keys():
        return
    raise nothing_stored_error(unwanted)


def require_weights_kept(files: Collection[str], unwanted: Mapping[str, str | None]) -> None:
    """Raises `Unsupported` if weights are left out because they are in folders, and the upload has no others.

    PEFT saves an adapter that is not named `default` in a folder of that name, with only the README beside
    it. The client would report success, and loaders would get the adapter that was there before, or none.
    """
    in_folders = sorted(path for path, reason in unwanted.items() if reason == IN_FOLDER and is_weights(path))
    if not in_folders or any(map(is_weights, set(files) - unwanted.keys())):
        return
    folder = in_folders[0].rpartition("/")[0]
    raise Unsupported(
        f"the upload's weights would not be stored: {shorten_names(in_folders)} ({IN_FOLDER})."
        f" Upload the contents of {folder[:200]} without the folder (PEFT saves an adapter in a folder unless"
        " it is named 'default'), or upload to a branch (revision=BRANCH)"
    )


def nothing_stored_error(unwanted: Mapping[str, str | None]) -> Unsupported:
    """The error for an upload if every file is left out."""
    by_reason: dict[str, list[str]] = {}
    for path in sorted(unwanted.keys() - _SILENT) or unwanted:
        otherwise = "for git only" if path in _SILENT else "ignored by .gitignore"
        by_reason.setdefault(unwanted[path] or otherwise, []).append(path)
    listed = "; ".join(f"{shorten_names(paths)} ({reason})" for reason, paths in by_reason.items())
    return Unsupported(
        f"none of this upload's files would be stored: {listed}."
        " Upload the files that save_pretrained of the PEFT model writes"
    )


def shorten_names(paths: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(paths[:_MAX_NAMES])
    return f"{shown} and {len(paths) - _MAX_NAMES} more" if len(paths) > _MAX_NAMES else shown


def _escapes_folder(path: str) -> bool:
    """Whether a path could be written outside of the folder it is downloaded to, on Windows too."""
    return path.startswith(("/", "\\")) or ".." in re.split(r"[\\/]", path) or _DRIVE.match(path) is not None


def _refuse(file: AnnouncedFile, coming: Collection[str], *, with_folders: bool) -> None:
    folder, _, name = file.path.rpartition("/")
    is_whole = WHOLE_MODEL.fullmatch(name) or (_WHOLE_PICKLE.fullmatch(name) and not detect_format(coming))
    if not folder and is_whole:
        raise Unsupported(
            f"{file.path} holds the weights of a whole model, and this registry stores adapters: push"
            " the files that save_pretrained of the PEFT model writes, or register a base with"
            " `adaptry base add DIR --store`"
        )
    for format in FORMATS.values():
        if not folder and name == format.pickle and format.weights not in coming:
            raise Unsupported(
                f"{file.path} is a pickle, which can run code when it is loaded, so it is never stored;"
                f" {format.remedy}"
            )
    if not is_adapter_file(file.path):
        return
    if file.size > MAX_FILE:
        raise TooLarge(f"{file.path} is {file.size:,} bytes; at most {MAX_FILE >> 30} GiB are stored")
    if with_folders and is_too_deep(file.path):
        raise TooLarge(
            f"the path {file.path[:200]} is too deep or too long: on a branch, a path has at most {MAX_DEPTH}"
            f" segments and {MAX_PATH} characters; upload a subfolder"
        )


def _reason(file: AnnouncedFile, with_folders: bool) -> str | None:
    path = file.path
    if not is_adapter_file(path):
        return exclusion_reason(path)
    try:
        check_path(path)
    except InvalidPath as error:
        return error.message
    if is_image(path) and (reason := image_exclusion_reason(file.size)):
        return reason
    if "/" in path and not with_folders:
        return IN_FOLDER
    return None
