"""The role of a registry that gates aliases: policies, approvals, and the decisions that were made.

A policy holds conditions for an alias of one adapter, or of every adapter of a namespace; both apply where
both exist. Its versions are kept. `aliases.move` decides, for moves of any origin.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from pydantic import Field

from adaptry.core.digest import Digest
from adaptry.core.gates.decision import PromotionDecision, Verdict
from adaptry.core.refs import AdapterName
from adaptry.registry.records import Page, Value

MAX_REASON = 1024
MAX_TEXT = 16 << 10


class PolicyInfo(Value):
    """A version of a policy. `scope` is a namespace or an adapter; without `text`, the policy was removed.
    `warnings` are sentences about objects that the policy names but that do not exist yet; only `set` returns
    them.
    """

    scope: str
    alias: str
    version: int
    digest: Digest
    text: str | None
    set_at: datetime
    set_by: str
    warnings: tuple[str, ...] = ()


class PolicyRequest(Value):
    """A new policy of a namespace or an adapter; the alias is in the text."""

    scope: str = Field(min_length=1, max_length=193)
    text: str = Field(min_length=1, max_length=MAX_TEXT)


class ApprovalInfo(Value):
    """A principal's approval of an alias's move to a version; `generation` is the alias's at that time.

    It `is_void` once the alias has moved or it was withdrawn, if its author pushed the version, and while its
    author is disabled or may not approve. Which groups count depends on the conditions.
    """

    name: AdapterName
    alias: str
    number: int
    digest: Digest
    generation: int
    by: str
    at: datetime
    withdrawn_at: datetime | None = None
    is_void: bool = False


class PromotionInfo(Value):
    """A move of an alias that was decided by conditions. `generation` is the alias's after the move, and
    `record` the digest of all facts behind the decision.
    """

    id: int
    name: AdapterName
    alias: str
    number: int
    digest: Digest
    verdict: Verdict
    reason: str | None = None
    generation: int
    at: datetime
    by: str
    record: Digest


class PromotionRecord(PromotionInfo):
    """A move, and the whole decision."""

    decision: PromotionDecision


class Policies(ABC):
    """The policies of aliases."""

    @abstractmethod
    def set(self, request: PolicyRequest) -> PolicyInfo:
        """Creates a new version of a policy. Setting the same text again changes nothing. A group that does
        not exist is a warning, since it may be created later.

        Raises `Invalid` with the line of the error (an unknown engine, for example), `MissingDependency`
        without the extra `gates`, `NotFound`, `PermissionDenied`.
        """

    @abstractmethod
    def list(self, scope: str | None = None) -> tuple[PolicyInfo, ...]:
        """The policies in force that the caller may see: of an adapter with those of its namespace, of a
        namespace with those of its adapters, or all. Raises `NotFound`.
        """

    @abstractmethod
    def history(self, scope: str, alias: str) -> tuple[PolicyInfo, ...]:
        """All versions of a policy, newest first. Raises `NotFound` for an absent or hidden adapter."""

    @abstractmethod
    def remove(self, scope: str, alias: str) -> None:
        """Removes a policy. Raises `NotFound`, `PermissionDenied`."""

    @abstractmethod
    def evaluate(
        self,
        name: AdapterName,
        alias: str,
        to: Digest,
        *,
        condition: str | None = None,
        policy: str | None = None,
    ) -> PromotionDecision:
        """What `aliases.move` would decide for the caller now; moves nothing. With one more `condition`, or
        with the text of a `policy` instead of those in force, requires the right to move the alias.

        Raises `NotFound`, `PermissionDenied`, `Conflict` for a version that aliases may not name, `Invalid`
        for a condition or policy that cannot be read, `MissingDependency`.
        """

    @abstractmethod
    def approve(
        self, name: AdapterName, alias: str, to: Digest, generation: int | None = None
    ) -> ApprovalInfo:
        """Approves a move of the alias from where it is now to a version. Approving again changes nothing.

        With a `generation`, approves only if the alias has it (0: it does not exist).

        Raises `NotFound`, `PermissionDenied`, `Conflict` if the alias is already there or has another
        generation, `Unsupported` where callers have no names.
        """

    @abstractmethod
    def withdraw_approval(self, name: AdapterName, alias: str, to: Digest) -> ApprovalInfo:
        """Withdraws the caller's own approval. Raises `NotFound` if the caller has no approval in force."""

    @abstractmethod
    def approvals(self, name: AdapterName, alias: str) -> tuple[ApprovalInfo, ...]:
        """The latest approvals, newest first, including void ones. Raises `NotFound`."""

    @abstractmethod
    def promotions(
        self, name: AdapterName, alias: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[PromotionInfo]:
        """The moves that were decided by conditions, newest first. Raises `NotFound`."""

    @abstractmethod
    def promotion(self, id: int) -> PromotionRecord:
        """Gets a move that was decided by conditions, with the whole decision. Raises `NotFound`, including
        for an adapter that the caller may not read.
        """
