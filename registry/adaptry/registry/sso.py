"""The single sign-on role: maps an identity provider's groups and users to those of the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Annotated

from pydantic import Field

from adaptry.registry.access import AccessRequest, GroupName, PrincipalName
from adaptry.registry.records import Page, Value

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
    """A user of an identity provider, linked to a user of the registry.

    `confirmed_at` is the time when the provider last confirmed the user, `ended_at` the time of its first
    refusal.
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
    """Manages mapped groups and external users, for administrators. Others get `PermissionDenied`."""

    @abstractmethod
    def map_group(self, request: ProviderGroupRequest) -> ProviderGroupInfo:
        """Maps a claim to a group: at every sign-in, users join or leave the group according to their claims.
        Replaces an earlier mapping of the claim. Raises `NotFound` (no such group).
        """

    @abstractmethod
    def list_groups(self) -> tuple[ProviderGroupInfo, ...]:
        """The mapped groups, ordered by claim."""

    @abstractmethod
    def unmap_group(self, claim: str) -> None:
        """Members stay in the group until they are removed from it. Users who are in no other mapped group
        are signed out at the next confirmation. Raises `NotFound`.
        """

    @abstractmethod
    def link_user(self, request: ExternalUserRequest) -> ExternalUserInfo:
        """Lets a user of the provider sign in as an existing user, without any mapped group.

        Raises `NotFound` (no such user), `Invalid` (not a user), `Conflict` (linked to another user already).
        """

    @abstractmethod
    def list_users(self, cursor: str | None = None, limit: int = 50) -> Page[ExternalUserInfo]:
        """The users who are linked or have signed in, by name. Raises `Invalid` for a bad cursor or limit."""
