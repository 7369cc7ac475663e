"""The part of `HttpRegistry` about commits and branches."""

from __future__ import annotations

import base64

from pydantic import BaseModel, TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.errors import DigestMismatch
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.registry.commits import MAIN, Chains
from adaptry.registry.http.connection import VERIFY_SECONDS, Connection
from adaptry.registry.http.paths import once_key, path_to
from adaptry.registry.records import BranchInfo, CommitInfo, CommitNote, Committed, Page


class _Moved(BaseModel):
    to: AdapterName | None


_BRANCH = TypeAdapter(BranchInfo)
_BRANCHES: TypeAdapter[tuple[BranchInfo, ...]] = TypeAdapter(tuple[BranchInfo, ...])
_COMMIT = TypeAdapter(CommitInfo)
_COMMITS = TypeAdapter(Page[CommitInfo])
_COMMITTED = TypeAdapter(Committed)
_MOVED = TypeAdapter(_Moved)


class RemoteChains(Chains):
    """Each method is one call; those that make something carry a key, so that they are done once."""

    _server: Connection

    def commit(self, name: AdapterName, revision: str = MAIN) -> CommitInfo:
        return self._server.ask(
            _COMMIT, "GET", path_to(name, "commits", "find"), query={"revision": revision}
        )

    def commits(
        self, name: AdapterName, revision: str = MAIN, cursor: str | None = None, limit: int = 50
    ) -> Page[CommitInfo]:
        query = {"revision": revision, "cursor": cursor, "limit": limit}
        return self._server.ask(_COMMITS, "GET", path_to(name, "commits"), query=query)

    def references(self, name: AdapterName) -> tuple[BranchInfo, ...]:
        return self._server.ask(_BRANCHES, "GET", path_to(name, "references"))

    def tree(self, name: AdapterName, revision: Digest) -> Manifest:
        data = self._server.tell("GET", path_to(name, "revisions", str(revision), "manifest"))
        if Digest.of(data) != revision:
            raise DigestMismatch(
                f"what came as the manifest of {name}@{revision.brief} is another; try again"
            )
        return Manifest.parse(data)

    def put_commit(
        self, name: AdapterName, branch: str, manifest: bytes, note: CommitNote, parent: str | None = None
    ) -> Committed:
        body = {
            "branch": branch,
            "manifest": base64.b64encode(manifest).decode(),
            "note": note.model_dump(mode="json"),
            "parent": parent,
        }
        return self._server.ask(
            _COMMITTED,
            "POST",
            path_to(name, "commits"),
            body=body,
            headers=once_key(),
            again=True,
            patience=VERIFY_SECONDS,
        )

    def make_branch(self, name: AdapterName, branch: str, at: str = MAIN) -> BranchInfo:
        body = {"name": branch, "at": at}
        path = path_to(name, "branches")
        return self._server.ask(_BRANCH, "POST", path, body=body, headers=once_key(), again=True)

    def drop_branch(self, name: AdapterName, branch: str) -> None:
        self._server.tell("DELETE", path_to(name, "branches", *branch.split("/")))

    def make_tag(self, name: AdapterName, tag: str, at: str = MAIN, message: str = "") -> BranchInfo:
        body = {"name": tag, "at": at, "message": message}
        path = path_to(name, "tags")
        return self._server.ask(_BRANCH, "POST", path, body=body, headers=once_key(), again=True)

    def drop_tag(self, name: AdapterName, tag: str) -> None:
        self._server.tell("DELETE", path_to(name, "tags", *tag.split("/")))

    def squash(self, name: AdapterName, branch: str, note: CommitNote) -> CommitInfo:
        body = {"branch": branch, "note": note.model_dump(mode="json")}
        path = path_to(name, "commits", "squash")
        return self._server.ask(_COMMIT, "POST", path, body=body, headers=once_key(), again=True)

    def moved(self, name: AdapterName) -> AdapterName | None:
        return self._server.ask(_MOVED, "GET", path_to(name, "moved")).to
