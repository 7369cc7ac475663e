"""The commits role over HTTP: commits, branches and tags."""

from __future__ import annotations

import base64

from pydantic import TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.errors import DigestMismatch
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.registry.commit_info import BranchInfo, CommitInfo, CommitNote, CommitResult
from adaptry.registry.commits import MAIN, Commits
from adaptry.registry.http.connection import VERIFY_SECONDS, Connection
from adaptry.registry.http.paths import idempotency_header, owner_path
from adaptry.registry.records import Page

_BRANCH = TypeAdapter(BranchInfo)
_BRANCHES: TypeAdapter[tuple[BranchInfo, ...]] = TypeAdapter(tuple[BranchInfo, ...])
_COMMIT = TypeAdapter(CommitInfo)
_COMMITS = TypeAdapter(Page[CommitInfo])
_COMMITTED = TypeAdapter(CommitResult)


@dataclass(frozen=True)
class HttpCommits(Commits):
    """Each method is one call. Calls that create something have an idempotency key, so they take effect
    once.
    """

    server: Connection

    def get(self, name: AdapterName, revision: str = MAIN) -> CommitInfo:
        return self.server.request_value(
            _COMMIT, "GET", owner_path(name, "commits", "find"), query={"revision": revision}
        )

    def list(
        self, name: AdapterName, revision: str = MAIN, cursor: str | None = None, limit: int = 50
    ) -> Page[CommitInfo]:
        query = {"revision": revision, "cursor": cursor, "limit": limit}
        return self.server.request_value(_COMMITS, "GET", owner_path(name, "commits"), query=query)

    def references(self, name: AdapterName) -> tuple[BranchInfo, ...]:
        return self.server.request_value(_BRANCHES, "GET", owner_path(name, "references"))

    def tree(self, name: AdapterName, revision: Digest) -> Manifest:
        data = self.server.request_bytes("GET", owner_path(name, "revisions", str(revision), "manifest"))
        if Digest.of(data) != revision:
            raise DigestMismatch(
                f"the response for {name}@{revision.brief} is a different manifest; try again"
            )
        return Manifest.parse(data)

    def put(
        self, name: AdapterName, branch: str, manifest: bytes, note: CommitNote, parent: str | None = None
    ) -> CommitResult:
        body = {
            "branch": branch,
            "manifest": base64.b64encode(manifest).decode(),
            "note": note.model_dump(mode="json"),
            "parent": parent,
        }
        return self.server.request_value(
            _COMMITTED,
            "POST",
            owner_path(name, "commits"),
            body=body,
            headers=idempotency_header(),
            again=True,
            timeout=VERIFY_SECONDS,
        )

    def create_branch(self, name: AdapterName, branch: str, at: str = MAIN) -> BranchInfo:
        body = {"name": branch, "at": at}
        path = owner_path(name, "branches")
        return self.server.request_value(
            _BRANCH, "POST", path, body=body, headers=idempotency_header(), again=True
        )

    def delete_branch(self, name: AdapterName, branch: str) -> None:
        self.server.request_bytes("DELETE", owner_path(name, "branches", *branch.split("/")))

    def create_tag(self, name: AdapterName, tag: str, at: str = MAIN, message: str = "") -> BranchInfo:
        body = {"name": tag, "at": at, "message": message}
        path = owner_path(name, "tags")
        return self.server.request_value(
            _BRANCH, "POST", path, body=body, headers=idempotency_header(), again=True
        )

    def delete_tag(self, name: AdapterName, tag: str) -> None:
        self.server.request_bytes("DELETE", owner_path(name, "tags", *tag.split("/")))

    def squash(self, name: AdapterName, branch: str, note: CommitNote) -> CommitInfo:
        body = {"branch": branch, "note": note.model_dump(mode="json")}
        path = owner_path(name, "commits", "squash")
        return self.server.request_value(
            _COMMIT, "POST", path, body=body, headers=idempotency_header(), again=True
        )
