"""Uploading: `preupload` says how each file is to come, or that it need not; `commit` puts them into a branch."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pathspec import GitIgnoreSpec
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from adaptry.core.errors import TooLarge, Unsupported
from adaptry.core.manifest import check_tree
from adaptry.core.refs import AdapterName
from adaptry.registry.commits import MAIN
from adaptry.registry.interface import Registry
from adaptry.registry.records import CommitResult
from adaptry_api.auth_policy import app_state_of
from adaptry_api.bodies import stream_body
from adaptry_api.errors import HttpProblem
from adaptry_api.hub import gitids
from adaptry_api.hub.adapters import AdapterRepository
from adaptry_api.hub.addresses import MODELS, Name, Revision, origin, url_path_of
from adaptry_api.hub.announced_files import FULL_BATCHES
from adaptry_api.hub.card_sync import sync_card
from adaptry_api.hub.commit_ops import MAX_BODY, read_operations
from adaptry_api.hub.commit_tree import apply_commit, drop_excluded_files, require_branch
from adaptry_api.hub.file_policy import AnnouncedFile, UploadFilter, excluded_files, require_some_kept
from adaptry_api.hub.gitignore import parse_gitignore
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.repo_lookup import CallersHubReader, HubReader
from adaptry_api.hub.snapshots import RepositoryFile, Snapshot
from adaptry_api.hub.uploads import content_length, require_length, require_writer
from adaptry_api.hub.warnings import add_warnings, finding_warnings, left_out_warnings

ROUTES = hub_router()

NO_PULL_REQUESTS = "this registry has no pull requests: commit to a branch of the adapter instead (create_branch, then revision=BRANCH)"
AsPullRequest = Annotated[str, Query(alias="create_pr", max_length=8)]


class PreuploadFile(BaseModel):
    """A file that is about to be sent. What it begins with (`sample`) is looked at when all of it is here."""

    path: str = Field(min_length=1, max_length=1024)
    size: int = Field(ge=0)


class PreuploadRequest(BaseModel):
    """What is about to be sent, and a `.gitignore` among it."""

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
    """Everything that can be refused is refused here: what a client shows of later refusals depends on its age."""
    refuse_pull_request(create_pr)
    branch, snapshot = _branch_snapshot(reader, name, revision)
    files = {file.path: file for file in snapshot.files}
    coming = [AnnouncedFile(file.path, file.size) for file in body.files]
    unwanted = _unwanted(coming, parse_gitignore(body.gitIgnore), files, reader, name, branch)
    answers = [
        {"path": file.path, "uploadMode": _ignored_mode(file), "shouldIgnore": True}
        if file.path in unwanted
        else _mode(file, files.get(file.path), snapshot)
        for file in coming
    ]
    response = JSONResponse({"files": answers, "commitOid": snapshot.commit})
    add_warnings(response, "left-out", left_out_warnings(unwanted))
    return response


@ROUTES.post(f"{MODELS}/commit/{{revision}}")
async def put(
    request: Request, name: Name, revision: Revision, reader: CallersHubReader, create_pr: AsPullRequest = ""
) -> Response:
    """The body is read as it comes: a small file in memory at a time. One that breaks off commits nothing."""
    refuse_pull_request(create_pr)
    size = content_length(request, MAX_BODY)

    def take(pieces: Iterator[bytes]) -> tuple[CommitResult, Mapping[str, str | None]]:
        require_writer(reader.registry, reader.identity, name)
        branch = require_branch(reader.registry, name, revision)
        chosen = _filter_of(reader.registry, name, branch)
        wanted = drop_excluded_files(read_operations(require_length(pieces, size)), chosen)
        committed, before = apply_commit(reader.registry, name, branch, wanted)
        if branch == MAIN:
            sync_card(reader.registry, name, before, committed, reader.caches)
        return committed, chosen.excluded

    async with app_state_of(request).uploads.slot((name.namespace,)) as threads:
        committed, unwanted = await stream_body(request, take, threads, None)
    said = {
        "success": True,
        "commitOid": committed.commit.id,
        "commitUrl": f"{origin(request)}/{url_path_of(str(name))}/commit/{committed.commit.id}",
        "hookOutput": "",
    }
    response = JSONResponse(said)
    add_warnings(response, "left-out", left_out_warnings(unwanted))
    add_warnings(response, "checks", finding_warnings(committed))
    return response


def _unwanted(
    coming: Sequence[AnnouncedFile],
    ignored: GitIgnoreSpec,
    present: Collection[str],
    reader: HubReader,
    name: AdapterName,
    branch: str,
) -> Mapping[str, str | None]:
    """As `left_out`; all of the files, if the client would repeat a refusal for ever.

    Raises as `left_out` and `require_something`, and `TooLarge` if the branch cannot hold what was announced.
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
        check_tree(upload.paths | set(present))
    except (Unsupported, TooLarge, HttpProblem) as error:
        if not announcements.is_repeated(key, paths, now):
            raise
        return dict.fromkeys(paths, error.detail if isinstance(error, HttpProblem) else error.message)
    return unwanted


def _filter_of(registry: Registry, name: AdapterName, branch: str) -> UploadFilter:
    head = registry.commit(name, f"refs/heads/{branch}")
    present = [entry.path for entry in registry.tree(name, head.digest).files]
    return UploadFilter(present, with_folders=branch != MAIN)


def refuse_pull_request(asked: str = "1") -> None:
    """Raises `HttpProblem` (501) where one is asked for."""
    if asked.lower() in ("1", "true"):
        raise HttpProblem(501, NO_PULL_REQUESTS)


def _branch_snapshot(reader: HubReader, name: AdapterName, revision: str) -> tuple[str, Snapshot]:
    """A branch that the caller may commit to, and what is on it."""
    require_writer(reader.registry, reader.identity, name)
    info = reader.registry.adapter(name)
    branch = require_branch(reader.registry, name, revision)
    return branch, AdapterRepository(reader, info).snapshot(f"refs/heads/{branch}")


def _ignored_mode(coming: AnnouncedFile) -> str:
    """How a client that sends ignored files all the same is to send one: a commit has no room for large ones."""
    return "lfs" if coming.size > gitids.MAX_REGULAR_SIZE else "regular"


def _mode(coming: AnnouncedFile, there: RepositoryFile | None, snapshot: Snapshot) -> dict[str, Any]:
    """How a file comes, and what is at its path now, named as the client would name what it has. (`Any`: JSON.)"""
    is_large = gitids.is_large(coming.path, coming.size)
    said: dict[str, Any] = {
        "path": coming.path,
        "uploadMode": "lfs" if is_large else "regular",
        "shouldIgnore": False,
    }
    if there is not None and is_large == bool(there.sha256):
        said["oid"] = there.etag
    return said
