"""Files and folders in the protocol's two forms: of a tree, and of a repository's `siblings`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.errors import FileMissing
from adaptry.registry.commit_info import CommitInfo
from adaptry_api.hub.gitids import pointer, tree_ids
from adaptry_api.hub.snapshots import RepositoryFile, Snapshot

_CLEAN = {
    "status": "safe",
    "avScan": {"status": "safe", "virusFound": False, "virusNames": []},
    "pickleImportScan": {"status": "safe", "highestSafetyLevel": "innocuous", "pickleImports": []},
}
"""The security status of every file: unsafe files are never stored."""


def folder_entries(
    snapshot: Snapshot, folder: str, *, is_recursive: bool, is_expanded: bool = False
) -> list[dict[str, Any]]:
    """The contents of a folder (`""`: the root). (`Any`: JSON.) Raises `FileMissing` if it does not exist."""
    inside = [file for file in snapshot.files if file.path.startswith(f"{folder}/" if folder else "")]
    if not inside and folder:
        raise FileMissing(f"{snapshot.repository} has no folder {folder[:200]!a} at {snapshot.commit[:12]}")
    found = [_Entry(file.path, file) for file in inside] + [_Entry(path) for path in _folders(inside, folder)]
    if not is_recursive:
        found = [entry for entry in found if "/" not in entry.path[len(folder) :].strip("/")]
    return _written(snapshot, sorted(found, key=lambda entry: entry.path), is_expanded)


def entries_at(snapshot: Snapshot, paths: Iterable[str], *, is_expanded: bool) -> list[dict[str, Any]]:
    """The files and folders at some paths; missing ones are left out. (`Any`: JSON.)"""
    files = {file.path: file for file in snapshot.files}
    folders = set(_folders(snapshot.files, ""))
    wanted = dict.fromkeys(path.strip("/") for path in paths)
    found = [_Entry(path, files.get(path)) for path in wanted if path in files or path in folders]
    return _written(snapshot, found, is_expanded)


def sibling_json(file: RepositoryFile, *, with_blobs: bool) -> dict[str, Any]:
    """A file as a repository's info lists it. (`Any`: JSON.)"""
    if not with_blobs:
        return {"rfilename": file.path}
    entry_json: dict[str, Any] = {"rfilename": file.path, "size": file.size, "blobId": file.oid}
    if file.sha256:
        entry_json["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
    return entry_json


def format_time(at: datetime) -> str:
    """A time in the protocol's form: with milliseconds, and a Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Entry:
    """The file at the path, or the folder if there is no file."""

    def __init__(self, path: str, file: RepositoryFile | None = None) -> None:
        self.path = path
        self.file = file


def _written(snapshot: Snapshot, found: list[_Entry], is_expanded: bool) -> list[dict[str, Any]]:
    ids = tree_ids({file.path: file.oid for file in snapshot.files}) if found else {}
    touched = snapshot.last_commits() if is_expanded else {}
    return [_entry(entry, ids) | (_more(entry, touched) if is_expanded else {}) for entry in found]


def _entry(entry: _Entry, ids: Mapping[str, str]) -> dict[str, Any]:
    file = entry.file
    if file is None:
        return {"type": "directory", "path": entry.path, "oid": ids[entry.path], "size": 0}
    entry_json: dict[str, Any] = {"type": "file", "path": file.path, "oid": file.oid, "size": file.size}
    if file.sha256:
        entry_json["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
    return entry_json


def _more(entry: _Entry, touched: Mapping[str, CommitInfo]) -> dict[str, Any]:
    commits = [commit for path, commit in touched.items() if f"{path}/".startswith(f"{entry.path}/")]
    last = max(commits, key=lambda commit: commit.at, default=None)
    entry_json: dict[str, Any] = {"securityFileStatus": _CLEAN} if entry.file else {}
    if last:
        entry_json["lastCommit"] = {"id": last.id, "title": last.title, "date": format_time(last.at)}
    return entry_json


def _folders(files: Iterable[RepositoryFile], below: str) -> list[str]:
    """Every folder inside `below` that contains a file, at any depth."""
    parents = {file.path.rpartition("/")[0] for file in files}
    found = {parent[:end] for parent in parents for end in _ends(parent)}
    return sorted(path for path in found if path and len(path) > len(below))


def _ends(path: str) -> list[int]:
    return [index for index, char in enumerate(path) if char == "/"] + [len(path)]


def _pointer_size(file: RepositoryFile) -> int:
    return len(pointer(Digest(file.sha256 or ""), file.size))
