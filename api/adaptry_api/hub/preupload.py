"""`POST …/preupload/{revision}`: instructs the client how to send each file, or to leave it out."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Response
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from adaptry.adapters.formats import defines_adapter
from adaptry.core.errors import TooLarge, Unsupported
from adaptry.core.manifest import check_tree
from adaptry.core.refs import AdapterName
from adaptry.registry.commits import MAIN
from adaptry_api.errors import HttpProblem
from adaptry_api.hub import gitids
from adaptry_api.hub.adapters import AdapterRepository
from adaptry_api.hub.addresses import MODELS, Name, Revision
from adaptry_api.hub.announced_files import FULL_BATCHES
from adaptry_api.hub.commit_tree import require_branch
from adaptry_api.hub.file_policy import (
    AnnouncedFile,
    excluded_files,
    require_some_kept,
    require_weights_kept,
)
from adaptry_api.hub.gitignore import parse_gitignore
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.repo_lookup import CallersHubReader, HubReader
from adaptry_api.hub.snapshots import RepositoryFile, Snapshot
from adaptry_api.hub.uploads import (
    AsPullRequest,
    refuse_pull_request,
    require_writer,
)
from adaptry_api.hub.warnings import WARNING_HEADER, add_warnings, left_out_warnings, warning_line

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

ROUTES = hub_router()


class PreuploadFile(BaseModel):
    """A file to be sent. Its first bytes (`sample`) are not used: the file is checked after its upload."""

    path: str = Field(min_length=1, max_length=1024)
    size: int = Field(ge=0)


class PreuploadRequest(BaseModel):
    """The files to be sent, and the text of a `.gitignore` among them."""

    files: list[PreuploadFile] = Field(max_length=256)
    gitIgnore: str = Field(default="", max_length=1 << 16)  # noqa: N815  the protocol's spelling


@ROUTES.post(f"{MODELS}/preupload/{{revision}}")
def preupload(
    name: Name,
    revision: Revision,
    body: PreuploadRequest,
    reader: CallersHubReader,
    create_pr: AsPullRequest = "",
) -> Response:
    """Refuses as much as possible here: whether a client shows later refusals depends on its version."""
    refuse_pull_request(create_pr)
    branch, snapshot = _branch_snapshot(reader, name, revision)
    files = {file.path: file for file in snapshot.files}
    coming = [AnnouncedFile(file.path, file.size) for file in body.files]
    try:
        unwanted = _unwanted(coming, parse_gitignore(body.gitIgnore), files, reader, name, branch)
    except Unsupported as error:
        if not all("/" in file.path for file in coming):
            raise
        # A Trainer uploads checkpoints, which are folders, in the background and shows no error of these.
        headers = {WARNING_HEADER: warning_line("not-stored", error.message)}
        raise HttpProblem(400, error.message, headers) from None
    answers = [
        {"path": file.path, "uploadMode": _ignored_mode(file), "shouldIgnore": True}
        if file.path in unwanted
        else _mode(file, files.get(file.path))
        for file in coming
    ]
    response = JSONResponse({"files": answers, "commitOid": snapshot.commit})
    add_warnings(response, "left-out", left_out_warnings(unwanted))
    return response


def _unwanted(
    coming: Sequence[AnnouncedFile],
    ignored: GitIgnoreSpec,
    present: Collection[str],
    reader: HubReader,
    name: AdapterName,
    branch: str,
) -> Mapping[str, str | None]:
    """Like `excluded_files`, but returns all files if the client would otherwise repeat a refused
    announcement endlessly.

    Raises the errors of `excluded_files`, `require_some_kept` and `require_weights_kept`, and `TooLarge` if
    the branch cannot hold the announced files.
    """
    announcements, key, now = (
        reader.caches.announcements,
        (reader.identity.name, str(name), branch),
        time.monotonic(),
    )
    paths = [file.path for file in coming]
    try:
        unwanted = excluded_files(coming, ignored, present, with_folders=branch != MAIN)
        wanted = [path for path in paths if path not in unwanted]
        upload = announcements.add(key, wanted, now, is_full=len(coming) in FULL_BATCHES)
        if not upload.is_in_batches:
            require_some_kept(paths, unwanted)
            require_weights_kept(paths, unwanted)
        check_tree(upload.paths | set(present))
    except (Unsupported, TooLarge, HttpProblem) as error:
        if not announcements.is_repeated(key, paths, now):
            raise
        return dict.fromkeys(paths, error.detail if isinstance(error, HttpProblem) else error.message)
    return unwanted


def _branch_snapshot(reader: HubReader, name: AdapterName, revision: str) -> tuple[str, Snapshot]:
    """A branch that the caller may commit to, and its files."""
    require_writer(reader.registry, reader.identity, name)
    info = reader.registry.adapters.get(name)
    branch = require_branch(reader.registry.commits, name, revision)
    return branch, AdapterRepository(reader, info).snapshot(f"refs/heads/{branch}")


def _ignored_mode(coming: AnnouncedFile) -> str:
    """The upload mode of a file that is ignored but may be sent anyway: large files do not fit into a
    commit.
    """
    return "lfs" if coming.size > gitids.MAX_REGULAR_SIZE else "regular"


def _mode(coming: AnnouncedFile, there: RepositoryFile | None) -> dict[str, Any]:
    """The upload mode of a file, and the id of the current file at its path, in the form that the client
    computes itself; the client omits the file from its commit if that is the same. (`Any`: JSON.)

    There is no id for an adapter's own files, even if they are announced one by one. A client that omitted
    its config would get, if another upload comes first, a version of its weights with the other upload's
    config.
    """
    is_large = gitids.is_large(coming.path, coming.size)
    entry: dict[str, Any] = {
        "path": coming.path,
        "uploadMode": "lfs" if is_large else "regular",
        "shouldIgnore": False,
    }
    if there is not None and is_large == bool(there.sha256) and not defines_adapter(coming.path):
        entry["oid"] = there.etag
    return entry
