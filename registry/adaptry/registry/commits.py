"""The role of a registry that keeps commits: branches of revisions, as the Hub's clients see an adapter.

A commit *is* a revision; its id is the beginning of the digest, so it always names the same tree. A branch is
a chain of commits. On `main`, which always begins with an empty tree, each version is a commit; a commit that
changes neither an adapter's weights nor its config creates no version. A commit's tree need not be an adapter
yet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Literal

from pydantic import Field, computed_field

from adaptry.core.digest import Digest
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.core.report import CheckReport
from adaptry.registry.records import Page, Value, VersionInfo

MAIN = "main"
COMMIT_MADE = "commit.made"
"""The event of a commit that created no version; otherwise the event is `version.pushed`."""


class CommitNote(Value):
    """The message of a commit; the registry records author and time."""

    title: str = Field(min_length=1, max_length=512)
    message: str = Field(default="", max_length=65_536)


class CommitInfo(Value):
    """A commit of a branch: a revision, with the title and message of its author.

    `id` always names this revision, so a branch that returns to an earlier tree shows that tree's id again.
    `number` is the version with this revision. `carries` is the version with the same weights and config: the
    same one, or an earlier one if only other files have changed since.
    """

    digest: Digest
    branch: str
    parent: str | None = None
    title: str
    message: str = ""
    author: str
    at: datetime
    number: int | None = None
    carries: int | None = None

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def id(self) -> str:
        """The first 40 hex digits of the digest."""
        return self.digest.short_id


class BranchInfo(Value):
    """A name for a commit. `head` is `main`; a `branch` moves with every commit to it, an `alias` only by
    `aliases.move`, a `tag` never."""

    name: str
    kind: Literal["head", "branch", "alias", "tag"]
    digest: Digest
    message: str = ""

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def commit(self) -> str:
        """The id of the commit."""
        return self.digest.short_id


class CommitResult(Value):
    """The head of a branch after a commit. `is_new` is False if the branch was already there.

    `version` and `report` are those of the version that the revision is, if it is one.
    """

    commit: CommitInfo
    is_new: bool
    version: VersionInfo | None = None
    report: CheckReport | None = None


class Commits(ABC):
    """Commits and branches of adapters. `hub_revision.GRAMMAR` describes the names of revisions."""

    @abstractmethod
    def get(self, name: AdapterName, revision: str = MAIN) -> CommitInfo:
        """The commit that `revision` selects now. Raises `NotFound` (no such adapter), `RevisionNotFound`."""

    @abstractmethod
    def list(
        self, name: AdapterName, revision: str = MAIN, cursor: str | None = None, limit: int = 50
    ) -> Page[CommitInfo]:
        """A commit and its predecessors, newest first. Raises what `get` raises."""

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
        `InvalidPath` for a file that an adapter may not have, and what `Versions.put` raises.
        """

    @abstractmethod
    def create_branch(self, name: AdapterName, branch: str, at: str = MAIN) -> BranchInfo:
        """Raises `Conflict` if the name is taken, `InvalidRef`, `PermissionDenied`, and what `get` raises."""

    @abstractmethod
    def delete_branch(self, name: AdapterName, branch: str) -> None:
        """Its commits keep their ids. Raises `RevisionNotFound`, `PermissionDenied` for `main` and for an
        alias.
        """

    @abstractmethod
    def create_tag(self, name: AdapterName, tag: str, at: str = MAIN, message: str = "") -> BranchInfo:
        """Creates a name that never moves. Raises what `create_branch` raises."""

    @abstractmethod
    def delete_tag(self, name: AdapterName, tag: str) -> None:
        """Raises `RevisionNotFound`, `PermissionDenied`."""

    @abstractmethod
    def squash(self, name: AdapterName, branch: str, note: CommitNote) -> CommitInfo:
        """Replaces the branch's history by one commit with its tree; versions and ids stay valid. Raises what
        `put` raises.
        """
