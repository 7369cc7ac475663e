"""`POST …/commit/{revision}`: puts files into a branch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastapi import Request, Response
from starlette.responses import JSONResponse

from adaptry.core.refs import AdapterName
from adaptry.registry.commit_info import CommitResult
from adaptry.registry.commits import MAIN, Commits
from adaptry_api.auth_policy import app_state_of
from adaptry_api.bodies import stream_body
from adaptry_api.hub.addresses import MODELS, Name, Revision, origin, url_path_of
from adaptry_api.hub.card_sync import sync_card
from adaptry_api.hub.commit_ops import MAX_BODY, read_operations
from adaptry_api.hub.commit_tree import apply_commit, drop_excluded_files, require_branch
from adaptry_api.hub.file_policy import UploadFilter
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.repo_lookup import CallersHubReader
from adaptry_api.hub.uploads import (
    AsPullRequest,
    content_length,
    refuse_pull_request,
    require_length,
    require_writer,
)
from adaptry_api.hub.warnings import add_warnings, finding_warnings, left_out_warnings

ROUTES = hub_router()


@ROUTES.post(f"{MODELS}/commit/{{revision}}")
async def commit(
    request: Request, name: Name, revision: Revision, reader: CallersHubReader, create_pr: AsPullRequest = ""
) -> Response:
    """The body is parsed as it arrives, with a few MiB of small files in memory at a time. An incomplete body
    commits nothing.
    """
    refuse_pull_request(create_pr)
    size = content_length(request, MAX_BODY)

    def take(pieces: Iterator[bytes]) -> tuple[CommitResult, Mapping[str, str | None], list[str]]:
        require_writer(reader.registry, reader.identity, name)
        branch = require_branch(reader.registry.commits, name, revision)
        chosen = _filter_of(reader.registry.commits, name, branch)
        wanted = drop_excluded_files(read_operations(require_length(pieces, size)), chosen)
        committed, before = apply_commit(reader.registry, name, branch, wanted)
        without = []
        if branch == MAIN:
            without = sync_card(reader.registry, name, before, committed, reader.caches)
        return committed, chosen.excluded, without

    async with app_state_of(request).uploads.slot((name.namespace,)) as threads:
        committed, unwanted, without = await stream_body(request, take, threads, None)
    body = {
        "success": True,
        "commitOid": committed.commit.id,
        "commitUrl": f"{origin(request)}/{url_path_of(str(name))}/commit/{committed.commit.id}",
        "hookOutput": "",
    }
    response = JSONResponse(body)
    add_warnings(response, "left-out", left_out_warnings(unwanted))
    add_warnings(response, "checks", finding_warnings(committed))
    add_warnings(response, "metrics", without)
    return response


def _filter_of(commits: Commits, name: AdapterName, branch: str) -> UploadFilter:
    head = commits.get(name, f"refs/heads/{branch}")
    present = [entry.path for entry in commits.tree(name, head.digest).files]
    return UploadFilter(present, with_folders=branch != MAIN)
