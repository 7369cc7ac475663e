"""The tokens role of a local registry."""

from __future__ import annotations

from datetime import datetime, timedelta

from adaptry.core.access.conditions import Facts
from adaptry.core.access.grants import Limit, check_permission
from adaptry.core.access.resources import Resource
from adaptry.core.errors import NotFound, PermissionDenied
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.access import CreatedToken, PrincipalInfo, TokenInfo, TokenRequest
from adaptry.registry.records import Page
from adaptry.registry.tokens import Tokens
from adaptry.storage import tokens
from adaptry.storage.catalog import cursors, principals
from adaptry.storage.catalog import tokens as kept
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.principals import (
    existing_principal,
    managed_namespaces,
    managed_principal,
    require_administrator,
)


@dataclass(frozen=True)
class LocalTokens(Tokens):
    """The tokens of a local registry."""

    context: RegistryContext

    def create(self, request: TokenRequest) -> CreatedToken:
        by = self.context.identity.name
        expires_at = None
        if request.days is not None:
            expires_at = self.context.clock() + timedelta(days=request.days)
        if request.role is not None:
            require_administrator(self.context, f"create a token of {request.name} with a role")
            namespaces, external = request.namespaces or (), self.context.identity.external
            with self.context.write() as tx:
                if external is not None and request.name == by:
                    own = existing_principal(tx, by)
                    issued = tokens.issue_narrowed_to_role(
                        tx, own, request.role, namespaces, expires_at, external
                    )
                else:
                    issued = tokens.issue_with_role(
                        tx, request.name, request.role, namespaces, expires_at, by
                    )
                return _created(request.name, issued, expires_at)
        assert request.principal is not None
        limit = _limit(request)
        with self.context.write() as tx:
            if request.principal == self.context.identity.name:
                principal = existing_principal(tx, request.principal)
                expires_at = self._own_expiry(tx, expires_at)
            else:
                what = f"create tokens of {request.principal}"
                principal = managed_principal(self.context, tx, request.principal, what)
                limit = self._within_namespace(principal.info, limit)
            tokens.require_able(principal)
            external = self.context.identity.external if principal.info.name == by else None
            issued = tokens.issue(tx, principal, request.name, limit, expires_at, by, external=external)
            return _created(principal.info.name, issued, expires_at)

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
        cursors.check_limit(limit)
        about = f"tokens {principal} {namespace} {with_revoked} {reverse}"
        after = cursors.decode_number(cursor, about)
        which = [kept.of_principals(principal, ())] if principal is not None else []
        which += [principals.of_namespace(namespace)] if namespace is not None else []
        which += [] if with_revoked else [kept.is_not_revoked()]
        with self.context.catalog.read() as tx:
            if not self.context.identity.may_administer:
                managed = managed_namespaces(self.context, tx)
                which.append(kept.of_principals(self.context.identity.name, managed))
            found = kept.page(tx, which, after, limit + 1, reverse=reverse)
        following = cursors.encode(found[limit - 1].id, about) if len(found) > limit else None
        return Page[TokenInfo](items=found[:limit], next=following)

    def revoke(self, id: int) -> None:
        with self.context.write() as tx:
            found = kept.by_id(tx, id)
            principal = principals.by_key(tx, found.principal).info if found else None
            is_own = principal is not None and principal.name == self.context.identity.name
            if principal is None or not (is_own or self._manages(principal)):
                raise _no_such_token(id)
            if is_own:
                self._require_unlimited_or_itself(id)
            if not kept.revoke(tx, id, self.context.clock()):
                raise _no_such_token(id)

    def _require_unlimited_or_itself(self, id: int) -> None:
        """Raises `PermissionDenied` if a limited token would revoke another token of its principal."""
        identity = self.context.identity
        if identity.limit is not None and identity.token != id and not identity.may_administer:
            raise PermissionDenied(
                f"this token of {identity.name} is limited, and limited tokens can revoke only themselves;"
                " use an unlimited one"
            )

    def _manages(self, principal: PrincipalInfo) -> bool:
        """Whether the caller manages the tokens of another principal."""
        identity = self.context.identity
        if identity.may_administer:
            return True
        facts = Facts(now=self.context.clock())
        return principal.namespace is not None and identity.may_in("token.manage", principal.namespace, facts)

    def _within_namespace(self, principal: PrincipalInfo, limit: Limit | None) -> Limit | None:
        """The limit of a service account's token. The owners of its namespace may not give away its grants in
        other namespaces. Raises `PermissionDenied`.
        """
        if self.context.identity.may_administer:
            return limit
        assert principal.namespace is not None, "only administrators may manage other users' tokens"
        own = Resource(principal.namespace)
        resources = (own,) if limit is None or limit.resources is None else limit.resources
        for resource in resources:
            if not own.contains(resource):
                raise PermissionDenied(
                    f"{self.context.identity.name} may create tokens of {principal.name} for {own} only, not"
                    f" for {resource}; ask an administrator"
                )
        return Limit(limit.permissions if limit else None, resources)

    def _own_expiry(self, tx: Transaction, expires_at: datetime | None) -> datetime | None:
        """The expiry of a token that callers create for themselves. Raises `PermissionDenied` if they may not
        create any.
        """
        identity = self.context.identity
        if identity.may_administer:
            return expires_at
        own = kept.by_id(tx, identity.token) if identity.token is not None else None
        if own is None or own.limit is not None:
            raise PermissionDenied(
                f"the token of {identity.name} is limited, and limited tokens cannot create others; use an"
                " unlimited one, or ask an administrator"
            )
        until = own.info.expires_at
        return min(filter(None, (expires_at, until)), default=None)


def _limit(request: TokenRequest) -> Limit | None:
    """The token's limits. Raises `Invalid`."""
    if request.permissions is None and request.resources is None:
        return None
    return Limit(
        None if request.permissions is None else tuple(map(check_permission, request.permissions)),
        None if request.resources is None else tuple(map(Resource.parse, request.resources)),
    )


def _created(principal: str, issued: tokens.IssuedToken, expires_at: datetime | None) -> CreatedToken:
    return CreatedToken(
        id=issued.id, principal=principal, name=issued.name, secret=issued.secret, expires_at=expires_at
    )


def _no_such_token(id: int) -> NotFound:
    return NotFound(f"no valid token has the id {id}; `adaptry token ls` shows them")
