"""The role of a registry that manages its principals: users, service accounts, workers, and groups of
them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from adaptry.registry.access import GroupInfo, InvitationInfo, InvitationRequest, PrincipalInfo, PrincipalKind
from adaptry.registry.records import Page

GROUP_MEMBERS_SHOWN = 50
"""How many members of a group are listed with it."""


class Principals(ABC):
    """Principals are identified by name. They are disabled, never deleted, so that no name is reused."""

    @abstractmethod
    def create(self, kind: PrincipalKind, name: str) -> PrincipalInfo:
        """Creates a principal. Service accounts, named `NAMESPACE/NAME`, require `token.manage` in the
        namespace; others require an administrator.

        Raises `Invalid` for a bad name, `Conflict` if it is taken, `PermissionDenied`.
        """

    @abstractmethod
    def list(
        self,
        cursor: str | None = None,
        limit: int = 50,
        *,
        kinds: Collection[PrincipalKind] = (),
        namespace: str | None = None,
        prefix: str = "",
        group: str | None = None,
    ) -> Page[PrincipalInfo]:
        """Principals in name order. Administrators get all; others get themselves, and the service accounts
        of namespaces whose tokens they manage. `kinds`, `namespace` and `prefix` (the beginning of the name)
        restrict the result. With a `group`, administrators and its members get the principals in it. Raises
        `NotFound` for a group that the caller may not see.
        """

    @abstractmethod
    def set_disabled(self, name: str, is_disabled: bool) -> PrincipalInfo:
        """Disables or enables a principal. The tokens of a disabled one are refused within five seconds.

        Raises `NotFound`, `PermissionDenied`, `Conflict` if no administrator would be left.
        """

    @abstractmethod
    def invite(self, request: InvitationRequest) -> InvitationInfo:
        """Invites a user, and creates the user if missing; earlier invitations of the user become invalid.

        Raises `Invalid` for a bad name or one of a service account or worker, `Conflict` for a disabled user,
        and `PermissionDenied` if the caller is not an administrator.
        """

    @abstractmethod
    def groups(self, cursor: str | None = None, limit: int = 50) -> Page[GroupInfo]:
        """Groups in name order. Administrators get all groups; others get those that they are in. Each has
        the names of its first `GROUP_MEMBERS_SHOWN` members.
        """

    @abstractmethod
    def create_group(self, name: str) -> GroupInfo:
        """Creates a group. Raises `Invalid`, `Conflict` if the name is taken, `PermissionDenied`."""

    @abstractmethod
    def delete_group(self, name: str) -> None:
        """Deletes a group, its grants, and the mappings of the identity provider's groups to it: users who
        are in no other mapped group are signed out. Raises `NotFound`, `PermissionDenied`, and `Conflict` if
        no administrator would be left.
        """

    @abstractmethod
    def set_membership(self, group: str, principal: str, is_member: bool) -> GroupInfo:
        """Adds a principal to a group, or removes it. Raises the errors of `delete_group`."""
