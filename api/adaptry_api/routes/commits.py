"""Commits and branches: an adapter as a chain of revisions, some of which are versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import Base64Bytes, BaseModel, Field

from adaptry.core.hub_revision import GRAMMAR
from adaptry.core.refs import AdapterName
from adaptry.registry import protocol
from adaptry.registry.commit_info import BranchInfo, CommitInfo, CommitNote, CommitResult
from adaptry.registry.commits import MAIN
from adaptry.registry.records import Page
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Cursor, Limit, Name

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}", "commits")

_Word = Annotated[str, Query(description=GRAMMAR)]


class NewCommit(BaseModel, extra="forbid"):
    """`manifest` is base64 of its canonical bytes; its files must have been uploaded. `parent` is the
    branch's head as the caller read it.
    """

    branch: str = MAIN
    manifest: Annotated[Base64Bytes, Field(max_length=protocol.JSON_LIMIT)]
    note: CommitNote
    parent: str | None = None


class NewBranch(BaseModel, extra="forbid"):
    """A name, and the revision that it starts at."""

    name: str
    at: str = MAIN


class NewTag(NewBranch):
    message: Annotated[str, Field(max_length=65_536)] = ""


class SquashRequest(BaseModel, extra="forbid"):
    branch: str = MAIN
    note: CommitNote


class CurrentAdapterName(BaseModel):
    """The current name of a renamed adapter; null if it was not renamed, or if the caller may not read it."""

    to: AdapterName | None


@ROUTES.get("/commits")
def list_commits(
    name: Name,
    registry: CallersRegistry,
    revision: _Word = MAIN,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[CommitInfo]:
    """List a commit and its ancestors, newest first."""
    return registry.commits.list(name, revision, cursor, limit)


@ROUTES.get("/commits/find")
def get_commit(name: Name, registry: CallersRegistry, revision: _Word = MAIN) -> CommitInfo:
    """Get the commit that a branch, a tag or a digest names."""
    return registry.commits.get(name, revision)


@ROUTES.post("/commits", responses={201: {"model": CommitResult}})
def create_commit(
    name: Name, body: NewCommit, response: Response, registry: IdempotentRegistry
) -> CommitResult:
    """Add a commit to a branch.

    The response is 201 for a new commit, and 200 if the branch is at this revision already. With `parent`,
    the commit is added only if the branch is still at that commit.
    """
    committed = registry.commits.put(name, body.branch, body.manifest, body.note, body.parent)
    response.status_code = 201 if committed.is_new else 200
    return committed


@ROUTES.post("/commits/squash")
def squash_branch(name: Name, body: SquashRequest, registry: IdempotentRegistry) -> CommitInfo:
    """Replace a branch's commits by one commit with the same files."""
    return registry.commits.squash(name, body.branch, body.note)


@ROUTES.get("/references")
def list_references(name: Name, registry: CallersRegistry) -> tuple[BranchInfo, ...]:
    """List an adapter's branches and tags."""
    return registry.commits.references(name)


@ROUTES.post("/branches", status_code=201)
def create_branch(name: Name, body: NewBranch, registry: IdempotentRegistry) -> BranchInfo:
    """Create a branch."""
    return registry.commits.create_branch(name, body.name, body.at)


@ROUTES.delete("/branches/{branch:path}", status_code=204)
def delete_branch(name: Name, branch: str, registry: CallersRegistry) -> None:
    """Delete a branch."""
    registry.commits.delete_branch(name, branch)


@ROUTES.post("/tags", status_code=201)
def create_tag(name: Name, body: NewTag, registry: IdempotentRegistry) -> BranchInfo:
    """Create a tag."""
    return registry.commits.create_tag(name, body.name, body.at, body.message)


@ROUTES.delete("/tags/{tag:path}", status_code=204)
def delete_tag(name: Name, tag: str, registry: CallersRegistry) -> None:
    """Delete a tag."""
    registry.commits.delete_tag(name, tag)


@ROUTES.get("/moved")
def get_current_name(name: Name, registry: CallersRegistry) -> CurrentAdapterName:
    """Get the current name of a renamed adapter."""
    return CurrentAdapterName(to=registry.adapters.renamed_to(name))
