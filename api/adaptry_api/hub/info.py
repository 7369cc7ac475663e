"""A repository's metadata: `GET /api/models/{id}`, the first request of most clients."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import partial
from typing import Annotated, Any

from fastapi import Query, Request, Response
from starlette.responses import JSONResponse

from adaptry.core.identity import Identity
from adaptry_api.auth_policy import AnswerInMemory, with_quick_answer
from adaptry_api.hub.addresses import MODELS, ONE_WORD, Revision, revision_in
from adaptry_api.hub.quick_requests import INFO, plain
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.snapshot_cache import FindSnapshot, snapshot_lookup
from adaptry_api.hub.snapshots import CachedAnswer, RepositoryDetails, Snapshot
from adaptry_api.hub.tree_entries import format_time, sibling_json
from adaptry_api.hub.warnings import add_warnings

ROUTES = hub_router()
_INFO = "info"
_ONLY_EXPANDED = frozenset({"baseModels", "downloadsAllTime"})
"""Fields that are sent only to clients that ask for them with `expand`."""

Expand = Annotated[list[str], Query(max_length=64)]
Brackets = Annotated[list[str], Query(alias="expand[]", max_length=64)]
Truth = Annotated[bool, Query()]
"""Newer clients write `true`, older ones `True`; FastAPI accepts both."""


async def _quick(request: Request, identity: Identity) -> Response:
    lookup = snapshot_lookup(request, identity)
    answer = await lookup.answer(_INFO, revision_in(request), _plain_answer)
    return answer.response()


def _from_memory(request: Request, identity: Identity) -> AnswerInMemory | None:
    snapshot = snapshot_lookup(request, identity).cached_now(revision_in(request))
    answer = snapshot.answers.get(_INFO) if snapshot else None
    return AnswerInMemory(answer.response()) if answer else None


@with_quick_answer(_quick, plain(INFO), _from_memory)
async def latest(
    find: FindSnapshot,
    blobs: Truth = False,
    securityStatus: Truth = False,  # noqa: N803  the protocol's spelling
    expand: Expand = [],  # noqa: B006  never changed
    brackets: Brackets = [],  # noqa: B006
) -> Response:
    return await find.use("main", partial(_answer, blobs, securityStatus, [*expand, *brackets]))


@with_quick_answer(_quick, plain(INFO), _from_memory)
async def at_revision(
    find: FindSnapshot,
    revision: Revision,
    blobs: Truth = False,
    securityStatus: Truth = False,  # noqa: N803
    expand: Expand = [],  # noqa: B006
    brackets: Brackets = [],  # noqa: B006
) -> Response:
    return await find.use(revision, partial(_answer, blobs, securityStatus, [*expand, *brackets]))


for _at in (MODELS, ONE_WORD):
    ROUTES.add_api_route(_at, latest, methods=["GET"])
    ROUTES.add_api_route(f"{_at}/revision/{{revision}}", at_revision, methods=["GET"])


def repo_info_json(
    id: str,
    about: RepositoryDetails,
    snapshot: Snapshot | None,
    *,
    with_blobs: bool = False,
    with_security: bool = False,
) -> dict[str, Any]:
    """All of a repository's fields; without a snapshot, only those that a listing has. (`Any`: JSON.)"""
    body: dict[str, Any] = {
        "_id": _hub_id(id),
        "id": id,
        "modelId": id,
        "author": id.partition("/")[0] if "/" in id else None,
        "lastModified": format_time(about.updated_at),
        "createdAt": format_time(about.created_at),
        "private": about.is_private,
        "gated": False,
        "disabled": False,
        "downloads": about.downloads,
        "downloadsAllTime": about.downloads,
        "likes": 0,
        "tags": list(about.tags),
        "library_name": about.library,
        "cardData": dict(about.card),
        "config": dict(about.config),
    }
    if about.bases:
        models = [{"_id": _hub_id(base), "id": base} for base in about.bases]
        body["baseModels"] = {"relation": "adapter", "models": models}
    if about.pipeline:
        body["pipeline_tag"] = about.pipeline
    if snapshot is not None:
        body |= {
            "sha": snapshot.commit,
            "siblings": [sibling_json(file, with_blobs=with_blobs) for file in snapshot.files],
            "spaces": [],
            "usedStorage": sum(file.size for file in snapshot.files),
        }
    if with_security:
        body["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
    return body


def select_fields(body: dict[str, Any], expand: Collection[str]) -> dict[str, Any]:
    """Only the fields in `expand`; if it is empty, those that the Hub sends by default. (`Any`: JSON.)"""
    if expand:
        return {key: body[key] for key in ("_id", "id", *expand) if key in body}
    return {key: value for key, value in body.items() if key not in _ONLY_EXPANDED}


def _hub_id(id: str) -> str:
    return hashlib.sha256(id.encode()).hexdigest()[:24]


def _plain_answer(snapshot: Snapshot) -> CachedAnswer:
    return CachedAnswer.of(_answer(False, False, [], snapshot))


def _answer(blobs: bool, security: bool, expand: list[str], snapshot: Snapshot) -> Response:
    body = repo_info_json(
        snapshot.repository, snapshot.details(), snapshot, with_blobs=blobs, with_security=security
    )
    response = JSONResponse(select_fields(body, expand))
    add_warnings(response, "state", snapshot.warnings())
    return response
