"""The role of a registry that knows its principals: users, service accounts, workers, and groups of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.registry.access import GroupInfo, InvitationInfo, InvitationRequest, PrincipalInfo, PrincipalKind


class Principals(ABC):
    """Principals are named by their names. They are disabled, never deleted, so that no name is reused."""

    @abstractmethod
    def create(self, kind: PrincipalKind, name: str) -> PrincipalInfo:
        """Service accounts, named `NAMESPACE/NAME`, take `token.manage` in the namespace; others an
        administrator.

        Raises `Invalid` for a bad name, `Conflict` if it is taken, `PermissionDenied`.
        """

    @abstractmethod
    def list(self, kind: PrincipalKind | None = None) -> tuple[PrincipalInfo, ...]:
        """In name order: all, for administrators; for others, themselves and the service accounts of
        namespaces whose tokens they manage.
        """

    @abstractmethod
    def set_disabled(self, name: str, is_disabled: bool) -> PrincipalInfo:
        """Within five seconds, a disabled principal may do nothing and none of its tokens is valid.

        Raises `NotFound`, `PermissionDenied`, `Conflict` where nobody would be left to administer.
        """

    @abstractmethod
    def invite(self, request: InvitationRequest) -> InvitationInfo:
        """Invites a user, who is created if missing; earlier invitations of theirs are no longer valid.

        Raises `Invalid` for a bad name or one of a service account or worker, `Conflict` for a disabled user,
        `PermissionDenied` to others than administrators.
        """

    @abstractmethod
    def groups(self) -> tuple[GroupInfo, ...]:
        """All, in name order, for administrators; for others, those that they are in."""

    @abstractmethod
    def create_group(self, name: str) -> GroupInfo:
        """Raises `Invalid`, `Conflict` if the name is taken, `PermissionDenied`."""

    @abstractmethod
    def delete_group(self, name: str) -> None:
        """With everything that is granted to it. Raises `NotFound`, `PermissionDenied`, and `Conflict` where
        nobody would be left to administer.
        """

    @abstractmethod
    def set_membership(self, group: str, principal: str, is_member: bool) -> GroupInfo:
        """Raises as `delete_group`."""
