"""The grants role: grants, members of namespaces, explanations of access, and authorization of inference
requests for gateways.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.registry.access import (
    AccessDecision,
    AccessQuery,
    GrantInfo,
    GrantRequest,
    MemberChange,
    NamespaceMembers,
)
from adaptry.registry.inference import InferenceDecision, InferenceRequest
from adaptry.registry.records import Page


class Grants(ABC):
    """Callers get `PermissionDenied` for objects that they may not administer, whether these exist or not.

    Callers who are not administrators add and remove grants only within a namespace in which they have
    `member.manage` and every action of the grant. A change takes effect within five seconds.
    """

    @abstractmethod
    def add(self, request: GrantRequest) -> GrantInfo:
        """Adds a grant, or returns the existing one that is the same.

        Raises `Invalid`, `NotFound` (the principal, the group), `PermissionDenied`.
        """

    @abstractmethod
    def list(
        self,
        namespace: str | None = None,
        principal: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        *,
        with_members: bool = True,
    ) -> Page[GrantInfo]:
        """Grants, oldest first: those that name one namespace, those of one principal (without its groups'),
        or all. A principal may list its own. Without members, grants of a role in a whole namespace are left
        out. Raises `PermissionDenied`.
        """

    @abstractmethod
    def remove(self, id: int) -> None:
        """Removes a grant. Raises `NotFound`, `PermissionDenied`, and `Conflict` if no administrator would be
        left, or no owner of the namespace (unless an administrator removes it).
        """

    @abstractmethod
    def members(self, namespace: str, cursor: str | None = None, limit: int = 50) -> NamespaceMembers:
        """A page of members, for every caller who may read the whole namespace. Raises `PermissionDenied`."""

    @abstractmethod
    def set_member(self, namespace: str, change: MemberChange) -> NamespaceMembers:
        """Sets or removes a member's role. The result has the first members. Raises `NotFound` (for example,
        if the principal to remove is not a member), `PermissionDenied`, `Invalid`, and `Conflict` if a caller
        who is not an administrator would leave the namespace without an owner.
        """

    @abstractmethod
    def set_accountable(self, namespace: str, principal: str | None) -> NamespaceMembers:
        """Requires `member.manage`. Raises `NotFound`, `PermissionDenied`, `Invalid` if it is not a user."""

    @abstractmethod
    def explain(self, query: AccessQuery) -> AccessDecision:
        """Explains the caller's own access; that of others if the caller is an administrator or has
        `member.manage` in the namespace.

        The result depends only on grants, whether the adapter exists or not. Raises `Invalid`, `InvalidRef`,
        `NotFound` (no such principal), `PermissionDenied`.
        """

    @abstractmethod
    def authorize(self, request: InferenceRequest) -> InferenceDecision:
        """Whether the holder of a token may use a model; for callers with `inference.authorize` on each of
        its adapters. The check counts as a use of the token.

        Every denial is the same. Raises `InvalidRef`, `PermissionDenied` (the caller lacks the right).
        """
