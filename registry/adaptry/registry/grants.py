"""The role of a registry that knows who may do what: grants, members of namespaces, and explanations; and
for gateways in front of engines, who may use an adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.registry.access import (
    AccessDecision,
    AccessQuestion,
    GrantInfo,
    GrantRequest,
    MemberChange,
    NamespaceMembers,
)
from adaptry.registry.inference import InferenceDecision, InferenceRequest


class Grants(ABC):
    """Callers get `PermissionDenied` for objects that they may not administer, whether these exist or not.

    Without being an administrator, a caller grants and takes back only what is in one namespace, where they
    have `member.manage` and every action that is granted. A change takes effect within five seconds.
    """

    @abstractmethod
    def add(self, request: GrantRequest) -> GrantInfo:
        """Granting the same again answers with the grant that is there.

        Raises `Invalid`, `NotFound` (the principal, the group), `PermissionDenied`.
        """

    @abstractmethod
    def list(self, namespace: str | None = None, principal: str | None = None) -> tuple[GrantInfo, ...]:
        """Oldest first: those about one namespace by name, those of one principal (without its groups'), or
        all. A principal may list its own. Raises `PermissionDenied`.
        """

    @abstractmethod
    def remove(self, id: int) -> None:
        """Raises `NotFound`, `PermissionDenied`, and `Conflict` where nobody would be left to administer."""

    @abstractmethod
    def members(self, namespace: str) -> NamespaceMembers:
        """For everybody who may read all of the namespace. Raises `PermissionDenied`."""

    @abstractmethod
    def set_member(self, namespace: str, change: MemberChange) -> NamespaceMembers:
        """Raises `NotFound` (also for removing somebody who is no member), `PermissionDenied`, `Invalid`."""

    @abstractmethod
    def set_accountable(self, namespace: str, principal: str | None) -> NamespaceMembers:
        """Takes `member.manage`. Raises `NotFound`, `PermissionDenied`, `Invalid` for one that is no user."""

    @abstractmethod
    def explain(self, question: AccessQuestion) -> AccessDecision:
        """For the caller; for others, if the caller is an administrator or has `member.manage` in the
        namespace.

        It says what grants allow, whether there is such an adapter or not. Raises `Invalid`, `InvalidRef`,
        `NotFound` (no such principal), `PermissionDenied`.
        """

    @abstractmethod
    def authorize(self, request: InferenceRequest) -> InferenceDecision:
        """Whether the holder of a token may use a model; for callers with `inference.authorize` on each of
        its adapters. It counts as a use of the token.

        Every denial is the same. Raises `InvalidRef`, `PermissionDenied` (the caller may not ask).
        """
