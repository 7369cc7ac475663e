"""The values of commits and branches that are pydantic models. Import them from `commit_info`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import computed_field

from adaptry.core.digest import Digest
from adaptry.core.report import CheckReport
from adaptry.registry.record_models import Value
from adaptry.registry.records import VersionInfo


class CommitInfo(Value):
    """A commit of a branch: a revision, with the title and message of its author.

    `id` always names this revision, so a branch that returns to an earlier tree shows that tree's id again.
    `number` is the version with this revision. `carries` is the version with the same weights and config:
    `number` itself, or an earlier version if only other files have changed since.
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
    """The head of a branch after a commit. `is_new` is False if the branch was already at this commit.

    `version` and `report` are set if the revision is a version.
    """

    commit: CommitInfo
    is_new: bool
    version: VersionInfo | None = None
    report: CheckReport | None = None
