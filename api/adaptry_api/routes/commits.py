"""Commits and branches: an adapter as a chain of revisions, of which only some are versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import Base64Bytes, BaseModel, Field

from adaptry.core.hub_revision import GRAMMAR
from adaptry.core.refs import AdapterName
from adaptry.registry import protocol
from adaptry.registry.commits import MAIN
from adaptry.registry.records import BranchInfo, CommitInfo, CommitNote, CommitResult, Page
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Cursor, Limit, Name

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}", "commits")

_Word = Annotated[str, Query(description=GRAMMAR)]


class NewCommit(BaseModel, extra="forbid"):
    """`manifest` is base64 of its canonical bytes; its files must be here. `parent` is the branch as seen."""

    branch: str = MAIN
    manifest: Annotated[Base64Bytes, Field(max_length=protocol.JSON_LIMIT)]
    note: CommitNote
    parent: str | None = None


class NewBranch(BaseModel, extra="forbid"):
    """A name, and the revision it begins at."""

    name: str
    at: str = MAIN


class NewTag(NewBranch):
    message: Annotated[str, Field(max_length=65_536)] = ""


class SquashRequest(BaseModel, extra="forbid"):
    branch: str = MAIN
    note: CommitNote


class CurrentAdapterName(BaseModel):
    """Where an adapter of this name is now; null for nowhere that the caller may know of."""

    to: AdapterName | None


@ROUTES.get("/commits")
def list_commits(
    name: Name,
    registry: CallersRegistry,
    revision: _Word = MAIN,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[CommitInfo]:
    return registry.commits.list(name, revision, cursor, limit)


@ROUTES.get("/commits/find")
def find(name: Name, registry: CallersRegistry, revision: _Word = MAIN) -> CommitInfo:
    return registry.commits.get(name, revision)


@ROUTES.post("/commits")
def commit(name: Name, body: NewCommit, response: Response, registry: IdempotentRegistry) -> CommitResult:
    """201 for a new commit; 200 where the branch was at this revision already."""
    committed = registry.commits.put(name, body.branch, body.manifest, body.note, body.parent)
    response.status_code = 201 if committed.is_new else 200
    return committed


@ROUTES.post("/commits/squash")
def squash(name: Name, body: SquashRequest, registry: IdempotentRegistry) -> CommitInfo:
    return registry.commits.squash(name, body.branch, body.note)


@ROUTES.get("/references")
def references(name: Name, registry: CallersRegistry) -> tuple[BranchInfo, ...]:
    return registry.commits.references(name)


@ROUTES.post("/branches", status_code=201)
def make_branch(name: Name, body: NewBranch, registry: IdempotentRegistry) -> BranchInfo:
    return registry.commits.create_branch(name, body.name, body.at)


@ROUTES.delete("/branches/{branch:path}", status_code=204)
def drop_branch(name: Name, branch: str, registry: CallersRegistry) -> None:
    registry.commits.delete_branch(name, branch)


@ROUTES.post("/tags", status_code=201)
def make_tag(name: Name, body: NewTag, registry: IdempotentRegistry) -> BranchInfo:
    return registry.commits.create_tag(name, body.name, body.at, body.message)


@ROUTES.delete("/tags/{tag:path}", status_code=204)
def drop_tag(name: Name, tag: str, registry: CallersRegistry) -> None:
    registry.commits.delete_tag(name, tag)


@ROUTES.get("/moved")
def moved(name: Name, registry: CallersRegistry) -> CurrentAdapterName:
    return CurrentAdapterName(to=registry.adapters.renamed_to(name))
