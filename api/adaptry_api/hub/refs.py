"""Names of revisions: what there is, and branches and tags made and dropped.

Aliases are listed as branches, since they move, and versions as tags `v1`, `v2`…, since they do not.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from adaptry.core.errors import Conflict, PermissionDenied, RevisionNotFound
from adaptry.core.hub_revision import parse_hub_revision
from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry.registry.paging import iter_items
from adaptry.registry.records import CommitNote
from adaptry_api.auth_policy import CallersRegistry
from adaptry_api.hub.addresses import MODELS, Name, Revision, next_link
from adaptry_api.hub.commit_tree import commit_title
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.tree_entries import format_time

ROUTES = hub_router()
_PAGE = 50
_VERSIONS = 200
_LONGEST = 200
_TOTAL = "X-Total-Count"


class HubTagRequest(BaseModel):
    """A name for the revision in the address."""

    tag: str = Field(min_length=1, max_length=256)
    message: str | None = Field(default=None, max_length=4096)


class HubBranchRequest(BaseModel):
    """Where the branch in the address begins; without it, where `main` is."""

    startingPoint: str | None = Field(default=None, max_length=256)  # noqa: N815  the protocol's spelling


class HubSquashRequest(BaseModel):
    """What the one commit says."""

    message: str | None = Field(default=None, max_length=4096)


@ROUTES.get(f"{MODELS}/refs")
def list_all(name: Name, registry: CallersRegistry, include_prs: str = "") -> dict[str, Any]:
    """(`Any`: JSON.)"""
    named = registry.references(name)
    said: dict[str, Any] = {
        "branches": [_ref(info.name, "heads", info.commit) for info in named if info.kind != "tag"],
        "converts": [],
        "tags": [_ref(info.name, "tags", info.commit) for info in named if info.kind == "tag"]
        + _versions(registry, name),
    }
    return said | ({"pullRequests": []} if include_prs else {})


@ROUTES.get(f"{MODELS}/commits/{{revision}}")
def commits(
    request: Request,
    name: Name,
    revision: Revision,
    registry: CallersRegistry,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = _PAGE,
    expand: Annotated[list[str], Query(max_length=16)] = [],  # noqa: B006  never changed
    brackets: Annotated[list[str], Query(alias="expand[]", max_length=16)] = [],  # noqa: B006
) -> Response:
    """Newest first."""
    page = registry.commits(name, revision, cursor, limit)
    is_formatted = "formatted" in (*expand, *brackets)
    found = [
        {
            "id": commit.id,
            "title": commit.title,
            "message": commit.message,
            "date": format_time(commit.at),
            "authors": [{"user": commit.author}],
        }
        | ({"formatted": {"title": commit.title, "message": commit.message}} if is_formatted else {})
        for commit in page.items
    ]
    headers = next_link(request, page.next) if page.next else {}
    if limit == 1 and cursor is None:  # how the JavaScript client counts; nobody else needs the walk
        headers[_TOTAL] = str(
            sum(1 for _ in iter_items(lambda at: registry.commits(name, revision, at, _LONGEST)))
        )
    return JSONResponse(found, headers=headers)


@ROUTES.post(f"{MODELS}/tag/{{revision}}")
def tag(name: Name, revision: Revision, body: HubTagRequest, registry: CallersRegistry) -> None:
    if _is_version(registry, name, body.tag):
        raise Conflict(f"{body.tag} is a version of {name} already; versions are numbered as they come")
    registry.create_tag(name, body.tag, revision, body.message or "")


@ROUTES.delete(f"{MODELS}/tag/{{revision}}")
def drop_tag(name: Name, revision: Revision, registry: CallersRegistry) -> None:
    if _is_version(registry, name, revision):
        raise PermissionDenied(f"{revision} is a version of {name}, and versions stay")
    registry.delete_tag(name, revision)


@ROUTES.post(f"{MODELS}/branch/{{revision}}")
def branch(
    name: Name, revision: Revision, registry: CallersRegistry, body: HubBranchRequest | None = None
) -> None:
    if revision == "main":
        raise Conflict("Reference refs/heads/main already exists")
    registry.create_branch(name, revision, (body and body.startingPoint) or "main")


@ROUTES.delete(f"{MODELS}/branch/{{revision}}")
def drop_branch(name: Name, revision: Revision, registry: CallersRegistry) -> None:
    registry.delete_branch(name, revision)


@ROUTES.post(f"{MODELS}/super-squash/{{revision}}")
def squash(
    name: Name, revision: Revision, registry: CallersRegistry, body: HubSquashRequest | None = None
) -> None:
    said = (body and body.message) or ""
    title = commit_title(said, f"Super-squash branch '{revision[:80]}'")
    registry.squash(name, revision, CommitNote(title=title))


def _ref(name: str, kind: str, commit: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}


def _versions(registry: Registry, name: AdapterName) -> list[dict[str, str]]:
    versions = iter_items(lambda cursor: registry.versions(name, cursor, _VERSIONS))
    return [_ref(f"v{version.number}", "tags", version.digest.short_id) for version in versions]


def _is_version(registry: Registry, name: AdapterName, tag: str) -> bool:
    if not tag.startswith("v") or parse_hub_revision(tag).number is None:
        return False
    try:
        registry.commit(name, f"refs/tags/{tag}")
    except RevisionNotFound:
        return False
    return True
