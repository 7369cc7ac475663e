"""The datasets to which lm-eval pushes: an inbox for results, and the only datasets that are served.

Every namespace has `lm-eval-results` and `lm-eval-results-private`. They need not be created, and are the
same inbox. Callers see the files that they posted there, because lm-eval reads them back to write a card; the
card is not kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, Query, Request, Response
from starlette.responses import JSONResponse

from adaptry.core.errors import AdaptryError, Invalid, TooLarge
from adaptry.core.evidence import lm_eval
from adaptry.core.evidence.posted_file import MAX_RESULTS, MAX_SAMPLES
from adaptry.registry.inbox import PostedFile
from adaptry.registry.interface import Registry
from adaptry_api.auth_policy import CallersRegistry, app_state_of
from adaptry_api.bodies import stream_body
from adaptry_api.downloads import bytes_response
from adaptry_api.hub.addresses import Path, origin
from adaptry_api.hub.commit_ops import CommitHeader, InlineFile, read_operations
from adaptry_api.hub.file_policy import shorten_names
from adaptry_api.hub.info import repo_info_json
from adaptry_api.hub.preupload import PreuploadRequest
from adaptry_api.hub.refusals import HubNotFound, hub_router
from adaptry_api.hub.snapshots import ListedFiles, RepositoryDetails, RepositoryFile, Snapshot
from adaptry_api.hub.tree_entries import entries_at, folder_entries
from adaptry_api.hub.uploads import content_length, require_length
from adaptry_api.hub.warnings import add_warnings, left_out_warnings
from adaptry_api.route_threads import run_in_own_threads

INBOXES = ("lm-eval-results", "lm-eval-results-private")
MAX_BODY = 96 << 20
"""Bytes of a commit: several files, in base64."""
MAX_FILES = 64
"""Results files in a commit. Each is parsed in a child process."""
_MAX_REASONS = 4
_CARD = "README.md"
_EMPTY_SINCE = datetime(2026, 1, 1, tzinfo=UTC)
ROUTES = hub_router()


async def _namespace(request: Request) -> str:
    return unquote(request.path_params["namespace"])


Namespace = Annotated[str, Depends(_namespace)]


def created(request: Request, name: str) -> Response:
    """The response to a client that creates such a dataset: it already exists."""
    return JSONResponse({"url": f"{origin(request)}/datasets/{name}", "name": name, "id": name})


def is_inbox(name: str) -> bool:
    """Whether `namespace/name` is one of these datasets."""
    namespace, _, repository = name.partition("/")
    return bool(namespace) and repository in INBOXES


def info(registry: CallersRegistry, namespace: Namespace) -> Response:
    found = _snapshot(registry, namespace)
    body = repo_info_json(found.repository, found.details(), found)
    return JSONResponse(body | {"_id": found.commit[:24]})  # the same for every namespace without results


def tree(registry: CallersRegistry, namespace: Namespace, path: Path, recursive: bool = False) -> Response:
    return JSONResponse(folder_entries(_snapshot(registry, namespace), path, is_recursive=recursive))


def paths_info(registry: CallersRegistry, namespace: Namespace, body: dict[str, Any]) -> Response:
    """(`Any`: JSON, of which only `paths` is used.)"""
    paths = body.get("paths")
    wanted = [path for path in paths if isinstance(path, str)][:1000] if isinstance(paths, list) else []
    return JSONResponse(entries_at(_snapshot(registry, namespace), wanted, is_expanded=False))


def preupload(registry: CallersRegistry, namespace: Namespace, body: PreuploadRequest) -> Response:
    """Results files are sent inside the commit. All other files, and files that were posted before, are left
    out.
    """
    there = {file.path: file.oid for file in _snapshot(registry, namespace).files}
    refused = {file.path: why for file in body.files if (why := _refusal(file.path, file.size))}
    answers = []
    for file in body.files:
        entry: dict[str, Any] = {
            "path": file.path,
            "uploadMode": "regular",
            "shouldIgnore": file.path in refused,
        }
        known = there.get(_listed(file.path))
        answers.append(entry | ({"oid": known} if known else {}))
    response = JSONResponse({"files": answers})
    add_warnings(response, "left-out", left_out_warnings(refused))
    return response


async def commit(
    request: Request, namespace: Namespace, registry: CallersRegistry, create_pr: Annotated[str, Query()] = ""
) -> Response:
    """Posts the files. Warnings list the files that are kept in the inbox, with the reason."""
    size = content_length(request, MAX_BODY)

    def take(pieces: Iterator[bytes]) -> list[PostedFile]:
        operations = read_operations(require_length(pieces, size), MAX_SAMPLES)
        return list(_posted(registry, namespace, operations))

    async with app_state_of(request).uploads.slot((namespace,)) as threads:
        posted = await stream_body(request, take, threads, None)
    found = "".join(str(file.file) for file in posted).encode()
    id = hashlib.sha1(found, usedforsecurity=False).hexdigest()
    repository = str(request.scope["path"]).removeprefix("/api").rpartition("/commit/")[0]
    url = f"{origin(request)}{repository}/commit/{id}"
    response = JSONResponse({"success": True, "commitOid": id, "commitUrl": url, "hookOutput": ""})
    add_warnings(response, "kept-apart", _kept_warnings(posted))
    return response


async def resolve(request: Request, registry: CallersRegistry, namespace: Namespace, path: Path) -> Response:
    snapshot = await run_in_own_threads("reads", partial(_snapshot, registry, namespace))
    try:
        file = snapshot.file(path)
    except AdaptryError as error:
        raise HubNotFound("EntryNotFound", error.message, snapshot.commit) from None
    headers = {
        "ETag": f'"{file.etag}"',
        "X-Repo-Commit": snapshot.commit,
        "X-Linked-Size": str(file.size),
        "Cache-Control": "private, no-cache",
    }

    def read_on(start: int) -> Iterator[bytes]:
        return snapshot.read(path, start)

    return await bytes_response(request, path, file.size, read_on, app_state_of(request).downloads, headers)


for _name in INBOXES:
    _at = f"/api/datasets/{{namespace}}/{_name}"
    ROUTES.add_api_route(_at, info, methods=["GET"])
    ROUTES.add_api_route(f"{_at}/revision/{{revision}}", info, methods=["GET"])
    ROUTES.add_api_route(f"{_at}/tree/{{revision}}", tree, methods=["GET"])
    ROUTES.add_api_route(f"{_at}/tree/{{revision}}/{{path:path}}", tree, methods=["GET"])
    ROUTES.add_api_route(f"{_at}/paths-info/{{revision}}", paths_info, methods=["POST"])
    ROUTES.add_api_route(f"{_at}/preupload/{{revision}}", preupload, methods=["POST"])
    ROUTES.add_api_route(f"{_at}/commit/{{revision}}", commit, methods=["POST"])
    ROUTES.add_api_route(
        f"/datasets/{{namespace}}/{_name}/resolve/{{revision}}/{{path:path}}",
        resolve,
        methods=["GET", "HEAD"],
    )


def _snapshot(registry: Registry, namespace: str) -> Snapshot:
    """The caller's posted files, as files of a repository."""
    # Of several files at a path, the newest.
    posted = {_listed(file.path): file for file in reversed(registry.inbox.posted(namespace))}
    text = "\n".join(f"{path} {file.file}" for path, file in sorted(posted.items()))

    def read(path: str, start: int) -> Iterator[bytes]:
        yield registry.inbox.read(posted[path].id)[start:]

    times = [file.at for file in posted.values()] or [_EMPTY_SINCE]
    return Snapshot(
        f"{namespace}/{INBOXES[1]}",
        hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
        ListedFiles(RepositoryFile(path, file.size, file.git_id) for path, file in sorted(posted.items())),
        read,
        lambda: RepositoryDetails(min(times), max(times)),
    )


def _listed(path: str) -> str:
    """The path in listings. lm-eval creates a URL from it, and `datasets` does not find the file if the URL
    needs quoting.
    """
    return re.sub(r"[^A-Za-z0-9._/-]", "_", path)


def _refusal(path: str, size: int) -> str | None:
    """Why a file is left out; None if it may be posted."""
    name = path.rpartition("/")[2]
    if name == _CARD:
        return None
    maximum = MAX_SAMPLES if lm_eval.samples_of(name) else MAX_RESULTS if lm_eval.results_time(name) else 0
    if not maximum:
        return "only results_….json and samples_….jsonl of lm-eval are accepted"
    if size > maximum:
        return f"it is larger than {maximum >> 20} MiB; add it with `adaptry evidence add REF FILE`"
    return None


def _kept_warnings(posted: Iterable[PostedFile]) -> list[str]:
    """A text for each reason. The last of many counts the others, because clients and proxies take few
    headers.
    """
    kept: dict[str, list[str]] = {}
    for file in posted:
        if file.reason:
            kept.setdefault(file.reason, []).append(file.path)
    texts = [
        f"{shorten_names(paths)} {'is' if len(paths) == 1 else 'are'} kept in the inbox: {reason}"
        for reason, paths in kept.items()
    ]
    more = sum(map(len, list(kept.values())[_MAX_REASONS:]))
    others = (
        [
            f"{more} more files are kept in the inbox for other reasons; `adaptry evidence inbox NAMESPACE`"
            " lists them"
        ]
        if more
        else []
    )
    return texts[:_MAX_REASONS] + others


def _posted(registry: Registry, namespace: str, operations: Iterator[object]) -> Iterator[PostedFile]:
    """Posts the files of a commit, results before samples.

    Raises `Invalid` and `TooLarge` before any is posted, if the commit itself cannot be taken.
    """
    results: list[InlineFile] = []
    samples: list[InlineFile] = []
    for operation in operations:
        match operation:
            case CommitHeader():
                continue
            case InlineFile(path=path) if path.rpartition("/")[2] == _CARD:
                continue
            case InlineFile(path=path) if lm_eval.samples_of(path.rpartition("/")[2]):
                samples.append(operation)
            case InlineFile():
                results.append(operation)
            case _:
                raise Invalid("a commit to this dataset may contain only results files")
        if len(results) + len(samples) > MAX_FILES:
            raise TooLarge(
                f"a commit to this dataset has at most {MAX_FILES} results files; pass an empty folder to"
                " lm-eval (--output_path), or make several commits"
            )
    for one in (*results, *samples):
        yield registry.inbox.post(namespace, one.path, one.data)
