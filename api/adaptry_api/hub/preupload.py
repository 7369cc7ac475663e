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
from adaptry.registry.records import Committed
from adaptry_api.auth_policy import store_of
from adaptry_api.bodies import pour
from adaptry_api.errors import Stopped
from adaptry_api.hub import gitids
from adaptry_api.hub.adapters import AdapterRepository
from adaptry_api.hub.addresses import MODELS, Name, Revision, origin, page_of
from adaptry_api.hub.announced_files import FULL_BATCHES
from adaptry_api.hub.card_sync import keep_card
from adaptry_api.hub.commit import commit, kept_operations, require_branch
from adaptry_api.hub.commit_ops import MAX_BODY, read_operations
from adaptry_api.hub.file_policy import Announced, UploadFilter, left_out, require_something
from adaptry_api.hub.gitignore import parse_gitignore
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.repo_lookup import CallersReader, Reader
from adaptry_api.hub.snapshots import HubFile, Snapshot
from adaptry_api.hub.uploads import announced, entire, require_writer
from adaptry_api.hub.warnings import about_findings, about_left_out, warn

ROUTES = hub_router()

NO_PULL_REQUESTS = "this registry has no pull requests: commit to a branch of the adapter instead (create_branch, then revision=BRANCH)"
AsPullRequest = Annotated[str, Query(alias="create_pr", max_length=8)]


class ComingFile(BaseModel):
    """A file that is about to be sent. What it begins with (`sample`) is looked at when all of it is here."""

    path: str = Field(min_length=1, max_length=1024)
    size: int = Field(ge=0)


class Coming(BaseModel):
    """What is about to be sent, and a `.gitignore` among it."""

    files: list[ComingFile] = Field(max_length=256)
    gitIgnore: str = Field(default="", max_length=1 << 16)  # noqa: N815  the protocol's spelling


@ROUTES.post(f"{MODELS}/preupload/{{revision}}")
def preupload(
    name: Name, revision: Revision, body: Coming, reader: CallersReader, create_pr: AsPullRequest = ""
) -> Response:
    """Everything that can be refused is refused here: what a client shows of later refusals depends on its age."""
    refuse_pull_request(create_pr)
    branch, snapshot = _branch_snapshot(reader, name, revision)
    files = {file.path: file for file in snapshot.files}
    coming = [Announced(file.path, file.size) for file in body.files]
    unwanted = _unwanted(coming, parse_gitignore(body.gitIgnore), files, reader, name, branch)
    answers = [
        {"path": file.path, "uploadMode": _ignored_mode(file), "shouldIgnore": True}
        if file.path in unwanted
        else _mode(file, files.get(file.path), snapshot)
        for file in coming
    ]
    response = JSONResponse({"files": answers, "commitOid": snapshot.commit})
    warn(response, "left-out", about_left_out(unwanted))
    return response


@ROUTES.post(f"{MODELS}/commit/{{revision}}")
async def put(
    request: Request, name: Name, revision: Revision, reader: CallersReader, create_pr: AsPullRequest = ""
) -> Response:
    """The body is read as it comes: a small file in memory at a time. One that breaks off commits nothing."""
    refuse_pull_request(create_pr)
    size = announced(request, MAX_BODY)

    def take(pieces: Iterator[bytes]) -> tuple[Committed, Mapping[str, str | None]]:
        require_writer(reader.registry, reader.identity, name)
        branch = require_branch(reader.registry, name, revision)
        chosen = _filter_of(reader.registry, name, branch)
        wanted = kept_operations(read_operations(entire(pieces, size)), chosen)
        committed, before = commit(reader.registry, name, branch, wanted)
        if branch == MAIN:
            keep_card(reader.registry, name, before, committed, reader.memory)
        return committed, chosen.left_out

    async with store_of(request).uploads.slot((name.namespace,)) as threads:
        committed, unwanted = await pour(request, take, threads, None)
    said = {
        "success": True,
        "commitOid": committed.commit.id,
        "commitUrl": f"{origin(request)}/{page_of(str(name))}/commit/{committed.commit.id}",
        "hookOutput": "",
    }
    response = JSONResponse(said)
    warn(response, "left-out", about_left_out(unwanted))
    warn(response, "checks", about_findings(committed))
    return response


def _unwanted(
    coming: Sequence[Announced],
    ignored: GitIgnoreSpec,
    present: Collection[str],
    reader: Reader,
    name: AdapterName,
    branch: str,
) -> Mapping[str, str | None]:
    """As `left_out`; all of the files, if the client would repeat a refusal for ever.

    Raises as `left_out` and `require_something`, and `TooLarge` if the branch cannot hold what was announced.
    """
    announcements, key, now = (
        reader.memory.announcements,
        (reader.identity.name, str(name), branch),
        time.monotonic(),
    )
    paths = [file.path for file in coming]
    try:
        unwanted = left_out(coming, ignored, present, with_folders=branch != MAIN)
        wanted = [path for path in paths if path not in unwanted]
        upload = announcements.add(key, wanted, now, is_full=len(coming) in FULL_BATCHES)
        if not upload.is_in_batches:
            require_something(paths, unwanted)
        check_tree(upload.paths | set(present))
    except (Unsupported, TooLarge, Stopped) as error:
        if not announcements.is_repeated(key, paths, now):
            raise
        return dict.fromkeys(paths, error.detail if isinstance(error, Stopped) else error.message)
    return unwanted


def _filter_of(registry: Registry, name: AdapterName, branch: str) -> UploadFilter:
    head = registry.commit(name, f"refs/heads/{branch}")
    present = [entry.path for entry in registry.tree(name, head.digest).files]
    return UploadFilter(present, with_folders=branch != MAIN)


def refuse_pull_request(asked: str = "1") -> None:
    """Raises `Stopped` (501) where one is asked for."""
    if asked.lower() in ("1", "true"):
        raise Stopped(501, NO_PULL_REQUESTS)


def _branch_snapshot(reader: Reader, name: AdapterName, revision: str) -> tuple[str, Snapshot]:
    """A branch that the caller may commit to, and what is on it."""
    require_writer(reader.registry, reader.identity, name)
    info = reader.registry.adapter(name)
    branch = require_branch(reader.registry, name, revision)
    return branch, AdapterRepository(reader, info).snapshot(f"refs/heads/{branch}")


def _ignored_mode(coming: Announced) -> str:
    """How a client that sends ignored files all the same is to send one: a commit has no room for large ones."""
    return "lfs" if coming.size > gitids.SMALL else "regular"


def _mode(coming: Announced, there: HubFile | None, snapshot: Snapshot) -> dict[str, Any]:
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
