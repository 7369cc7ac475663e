"""The role of a registry that issues tokens: credentials of principals, which only narrow their rights."""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.registry.access import CreatedToken, TokenInfo, TokenRequest
from adaptry.registry.records import Page


class Tokens(ABC):
    """Administrators manage every token, holders of `token.manage` those of a namespace's service accounts,
    and all principals their own.
    """

    @abstractmethod
    def create(self, request: TokenRequest) -> CreatedToken:
        """Creates a token. To create a token for themselves, callers need an unlimited token; the new one
        expires no later than that one. A service account's token is limited to its namespace, unless an
        administrator creates it.

        Raises `Invalid`, `NotFound` (no such principal), `Conflict` (they have a token of that name),
        `PermissionDenied`.
        """

    @abstractmethod
    def list(
        self,
        cursor: str | None = None,
        limit: int = 50,
        *,
        principal: str | None = None,
        namespace: str | None = None,
        with_revoked: bool = True,
        reverse: bool = False,
    ) -> Page[TokenInfo]:
        """The tokens that the caller manages, oldest first, including expired ones, without secrets: all, or
        those of one principal, or of the service accounts of one namespace.
        """

    @abstractmethod
    def revoke(self, id: int) -> None:
        """Revokes a token; it is refused everywhere within five seconds. Raises `NotFound`."""
