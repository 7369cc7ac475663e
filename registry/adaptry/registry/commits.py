"""The role of a registry that keeps commits: branches of revisions, as the Hub's clients see an adapter.

A commit *is* a revision; its id is the beginning of the digest, so it means the same tree for ever. A branch
is a chain of commits. On `main`, which always begins with an empty tree, each version is a commit; a commit
that changes other files than an adapter's weights and config makes none. What a commit holds need not be an
adapter yet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.core.digest import Digest
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.registry.records import BranchInfo, CommitInfo, CommitNote, CommitResult, Page

MAIN = "main"
COMMIT_MADE = "commit.made"
"""The event of a commit that made no version; one that did is a `version.pushed`."""


class Commits(ABC):
    """How revisions are named: `hub_revision.GRAMMAR`."""

    @abstractmethod
    def get(self, name: AdapterName, revision: str = MAIN) -> CommitInfo:
        """What a word means now. Raises `NotFound` (no such adapter), `RevisionNotFound` (nor any such
        revision).
        """

    @abstractmethod
    def list(
        self, name: AdapterName, revision: str = MAIN, cursor: str | None = None, limit: int = 50
    ) -> Page[CommitInfo]:
        """A commit and those before it in its chain, newest first. Raises as `get`."""

    @abstractmethod
    def references(self, name: AdapterName) -> tuple[BranchInfo, ...]:
        """`main`, then branches, aliases and tags, each in name order; versions are not among them. Raises
        `NotFound`.
        """

    @abstractmethod
    def tree(self, name: AdapterName, revision: Digest) -> Manifest:
        """What any commit of the adapter holds, also one that no branch reaches any more; `Files.read` reads
        its files.

        Raises `NotFound`, `RevisionNotFound`.
        """

    @abstractmethod
    def put(
        self, name: AdapterName, branch: str, manifest: bytes, note: CommitNote, parent: str | None = None
    ) -> CommitResult:
        """Moves a branch on to a revision whose files are here, if the branch is at `parent` (None: wherever
        it is).

        On `main`, an adapter whose weights or config changed becomes a version, by the checks of
        `Versions.put`. A branch that is at this very revision stays as it is. Raises `Conflict` where the
        branch is elsewhere by now, `RevisionNotFound` where there is no such branch, `PermissionDenied` for
        one that is an alias, `InvalidPath` for a file that is none of an adapter's, and as `Versions.put`.
        """

    @abstractmethod
    def create_branch(self, name: AdapterName, branch: str, at: str = MAIN) -> BranchInfo:
        """Raises `Conflict` where the name is taken, `InvalidRef`, `PermissionDenied`, and as `get`."""

    @abstractmethod
    def delete_branch(self, name: AdapterName, branch: str) -> None:
        """Its commits keep their ids. Raises `RevisionNotFound`, `PermissionDenied` for `main` and for an
        alias.
        """

    @abstractmethod
    def create_tag(self, name: AdapterName, tag: str, at: str = MAIN, message: str = "") -> BranchInfo:
        """A name that never moves. Raises as `create_branch`."""

    @abstractmethod
    def delete_tag(self, name: AdapterName, tag: str) -> None:
        """Raises `RevisionNotFound`, `PermissionDenied`."""

    @abstractmethod
    def squash(self, name: AdapterName, branch: str, note: CommitNote) -> CommitInfo:
        """Makes a branch one commit of the tree it holds; versions and ids stay. Raises as `put`."""
