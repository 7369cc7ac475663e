"""The role of a registry whose users sign in at an identity provider: their groups, and who they are here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Annotated

from pydantic import Field

from adaptry.registry.access import AccessRequest, GroupName, PrincipalName
from adaptry.registry.records import Value

ClaimText = Annotated[str, Field(min_length=1, max_length=255)]


class ProviderGroupInfo(Value):
    """Users whose group claim contains `claim` are members of `group` here."""

    claim: str
    group: str
    set_at: datetime
    set_by: str


class ProviderGroupRequest(AccessRequest):
    """A group as the provider's claim names it, and an existing group here."""

    claim: ClaimText
    group: GroupName


class ExternalUserInfo(Value):
    """A user of an identity provider, and the user that they are here.

    `confirmed_at` is when the provider last knew them, and `ended_at` when it did not any more.
    """

    user: str
    issuer: str
    subject: str
    confirmed_at: datetime | None = None
    ended_at: datetime | None = None


class ExternalUserRequest(AccessRequest):
    """The claims `iss` and `sub` of a user of the provider, who signs in as the existing user `user`."""

    user: PrincipalName
    issuer: ClaimText
    subject: ClaimText


class SingleSignOn(ABC):
    """Administrators only: `PermissionDenied` for all others."""

    @abstractmethod
    def map_group(self, request: ProviderGroupRequest) -> ProviderGroupInfo:
        """At every sign-in, users join the group or leave it, by their claim. Takes the place of an earlier
        mapping of the claim. Raises `NotFound` (no such group).
        """

    @abstractmethod
    def list_groups(self) -> tuple[ProviderGroupInfo, ...]:
        """Ordered by claim."""

    @abstractmethod
    def unmap_group(self, claim: str) -> None:
        """Members stay in the group until they are removed from it. Raises `NotFound`."""

    @abstractmethod
    def link_user(self, request: ExternalUserRequest) -> ExternalUserInfo:
        """Lets somebody sign in as a user who exists already.

        Raises `NotFound` (no such user), `Invalid` (not a user), `Conflict` (they are somebody else already).
        """

    @abstractmethod
    def list_users(self) -> tuple[ExternalUserInfo, ...]:
        """Everybody who is linked or has signed in, by name."""
