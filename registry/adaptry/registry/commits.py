"""The role of a registry that keeps commits: branches of revisions, as the Hub's clients see an adapter.

A commit *is* a revision; its id is the beginning of the digest, so it always names the same tree. A branch is
a chain of commits. On `main`, which always begins with an empty tree, each version is a commit; a commit that
changes neither an adapter's weights nor its config creates no version. A commit's tree need not be an adapter
yet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName

if TYPE_CHECKING:
    from adaptry.registry.commit_info import BranchInfo, CommitInfo, CommitNote, CommitResult
    from adaptry.registry.records import Page

MAIN = "main"
COMMIT_CREATED = "commit.created"
"""The event of a commit that created no version; otherwise the event is `version.pushed`."""


class Commits(ABC):
    """Commits and branches of adapters. `hub_revision.GRAMMAR` describes the names of revisions."""

    @abstractmethod
    def get(self, name: AdapterName, revision: str = MAIN) -> CommitInfo:
        """The commit that `revision` selects now. Raises `NotFound` (no such adapter), `RevisionNotFound`."""

    @abstractmethod
    def list(
        self, name: AdapterName, revision: str = MAIN, cursor: str | None = None, limit: int = 50
    ) -> Page[CommitInfo]:
        """A commit and its predecessors, newest first. Raises the errors of `get`."""

    @abstractmethod
    def references(self, name: AdapterName) -> tuple[BranchInfo, ...]:
        """`main`, then branches, aliases and tags, each in name order; versions are not among them. Raises
        `NotFound`.
        """

    @abstractmethod
    def tree(self, name: AdapterName, revision: Digest) -> Manifest:
        """The tree of any commit of the adapter, including commits that no branch reaches.
        `Files.read` reads the files.

        Raises `NotFound`, `RevisionNotFound`.
        """

    @abstractmethod
    def put(
        self, name: AdapterName, branch: str, manifest: bytes, note: CommitNote, parent: str | None = None
    ) -> CommitResult:
        """Moves a branch to a revision whose files are uploaded, if the branch is at `parent` (None:
        anywhere).

        On `main`, an adapter whose weights or config changed becomes a version, by the checks of
        `Versions.put`. A branch that is already at this revision does not change. Raises `Conflict` if the
        branch has moved, `RevisionNotFound` if there is no such branch, `PermissionDenied` for an alias,
        `InvalidPath` for a file that an adapter may not have, and the errors of `Versions.put`.
        """

    @abstractmethod
    def create_branch(self, name: AdapterName, branch: str, at: str = MAIN) -> BranchInfo:
        """Creates a branch at a revision. Raises `Conflict` if the name is taken, `InvalidRef`,
        `PermissionDenied`, and the errors of `get`.
        """

    @abstractmethod
    def delete_branch(self, name: AdapterName, branch: str) -> None:
        """Deletes a branch; its commits keep their ids. Raises `RevisionNotFound`, `PermissionDenied` for
        `main` and for an alias.
        """

    @abstractmethod
    def create_tag(self, name: AdapterName, tag: str, at: str = MAIN, message: str = "") -> BranchInfo:
        """Creates a tag, a name that never moves. Raises the errors of `create_branch`."""

    @abstractmethod
    def delete_tag(self, name: AdapterName, tag: str) -> None:
        """Deletes a tag. Raises `RevisionNotFound`, `PermissionDenied`."""

    @abstractmethod
    def squash(self, name: AdapterName, branch: str, note: CommitNote) -> CommitInfo:
        """Replaces the branch's history by one commit with its tree; versions and ids stay valid. Raises the
        errors of `put`.
        """
