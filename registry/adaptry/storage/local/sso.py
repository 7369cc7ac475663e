"""The single sign-on role of a local registry: users and groups of an identity provider."""

from __future__ import annotations

from adaptry.core.errors import Conflict, Invalid, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.records import Page
from adaptry.registry.sso import (
    ExternalUserInfo,
    ExternalUserRequest,
    ProviderGroupInfo,
    ProviderGroupRequest,
    SingleSignOn,
)
from adaptry.storage.catalog import cursors, principals, sign_ins
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.principals import existing_group, existing_principal, require_administrator
from adaptry.storage.sign_ins import is_linked


@dataclass(frozen=True)
class LocalSingleSignOn(SingleSignOn):
    """The groups and users of an identity provider in a local registry."""

    context: RegistryContext

    def map_group(self, request: ProviderGroupRequest) -> ProviderGroupInfo:
        require_administrator(self.context, "map groups of the identity provider")
        with self.context.write() as tx:
            group = existing_group(tx, request.group)
            now, by = self.context.clock(), self.context.identity.name
            sign_ins.map_group(tx, request.claim, group, now, by)
            self.context.record(tx, "sso.map", AuditTarget(group.name), after={"claim": request.claim})
        return ProviderGroupInfo(claim=request.claim, group=group.name, set_at=now, set_by=by)

    def list_groups(self) -> tuple[ProviderGroupInfo, ...]:
        require_administrator(self.context, "list groups of the identity provider")
        with self.context.catalog.read() as tx:
            return sign_ins.provider_groups(tx)

    def unmap_group(self, claim: str) -> None:
        require_administrator(self.context, "change groups of the identity provider")
        with self.context.write() as tx:
            mapped = next((one for one in sign_ins.provider_groups(tx) if one.claim == claim), None)
            if mapped is None:
                raise NotFound(f"{claim[:255]!a} is not mapped; `adaptry sso ls` shows what is")
            sign_ins.unmap_group(tx, claim)
            self.context.record(tx, "sso.unmap", AuditTarget(mapped.group), before={"claim": claim})

    def link_user(self, request: ExternalUserRequest) -> ExternalUserInfo:
        require_administrator(self.context, f"link {request.user} to a user of the identity provider")
        with self.context.write() as tx:
            user = existing_principal(tx, request.user)
            if user.info.kind != "user":
                raise Invalid(f"{user.info.name} is a {user.info.kind}; only users sign in")
            found = sign_ins.find_external(tx, request.issuer, request.subject)
            if found is not None and found.principal != user.key:
                taken = principals.by_key(tx, found.principal).info.name
                raise Conflict(f"{request.subject[:255]!a} of {request.issuer} signs in as {taken} already")
            if found is None or not is_linked(found, user):
                now, by = self.context.clock(), self.context.identity.name
                if found is None:
                    sign_ins.insert_external(tx, request.issuer, request.subject, user.key, now, by)
                else:
                    sign_ins.set_creator(tx, found, now, by)
                facts = {"issuer": request.issuer, "subject": request.subject}
                self.context.record(tx, "sso.link", AuditTarget(user.info.name), after=facts)
            return sign_ins.external_user(tx, request.issuer, request.subject)

    def list_users(self, cursor: str | None = None, limit: int = 50) -> Page[ExternalUserInfo]:
        require_administrator(self.context, "list users of the identity provider")
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            return sign_ins.external_users(tx, cursor, limit)
