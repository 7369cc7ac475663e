"""The principals role of a local registry: principals and their groups."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

from adaptry.core.access.actions import Action
from adaptry.core.access.conditions import Facts
from adaptry.core.errors import Conflict, Invalid, InvalidRef, NotFound, PermissionDenied
from adaptry.core.identity import require_unreserved
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry.access import GroupInfo, InvitationInfo, InvitationRequest, PrincipalInfo, PrincipalKind
from adaptry.registry.principals import GROUP_MEMBERS_SHOWN, Principals
from adaptry.registry.records import Page
from adaptry.storage import invitations
from adaptry.storage.catalog import cursors, grants, principals, sign_ins
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.principals import GroupRecord, PrincipalRecord
from adaptry.storage.local.context import RegistryContext

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,95}")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class LocalPrincipals(Principals):
    """The principals of a local registry."""

    context: RegistryContext

    def create(self, kind: PrincipalKind, name: str) -> PrincipalInfo:
        namespace = None
        if kind == "service-account":
            namespace = _namespace_of(name)
            require_in_namespace(self.context, "token.manage", namespace)
        else:
            require_administrator(self.context, f"create the {kind} {name}")
            _check_name(kind, name)
        with self.context.write() as tx:
            now, by = self.context.clock(), self.context.identity.name
            return principals.insert(tx, kind, name, namespace, now, by).info

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
        cursors.check_limit(limit)
        about = f"principals {sorted(kinds)} {namespace} {prefix} {group}"
        after = cursors.decode(cursor, about) if cursor is not None else None
        which = [principals.of_namespace(namespace)] if namespace is not None else []
        which += [principals.begins_with(prefix)] if prefix else []
        with self.context.catalog.read() as tx:
            if group is not None:
                which += [principals.in_group(self._seen_group(tx, group))]
                any_of = principals.of_kinds(kinds)
            elif self.context.identity.may_administer:
                any_of = principals.of_kinds(kinds)
            else:
                managed = managed_namespaces(self.context, tx)
                any_of = principals.visible_to(self.context.identity.name, managed, kinds)
            found = principals.page(tx, which, any_of, after, limit + 1)
        following = cursors.encode(found[limit - 1].name, about) if len(found) > limit else None
        return Page[PrincipalInfo](items=found[:limit], next=following)

    def set_disabled(self, name: str, is_disabled: bool) -> PrincipalInfo:
        with self.context.write() as tx:
            principal = managed_principal(self.context, tx, name, f"disable or enable {name}")
            if (principal.info.disabled_at is not None) == is_disabled:
                return principal.info
            could_administer = grants.has_administrator(tx)
            at = self.context.clock() if is_disabled else None
            changed = principals.set_disabled(tx, principal, at)
            require_administrator_left(tx, could_administer)
            action = "principal.disable" if is_disabled else "principal.enable"
            state = {"disabled": not is_disabled}, {"disabled": is_disabled}
            self.context.record(tx, action, _target(changed.info), before=state[0], after=state[1])
            return changed.info

    def invite(self, request: InvitationRequest) -> InvitationInfo:
        require_administrator(self.context, f"invite {request.name}")
        if self.context.identity.external is not None and request.name == self.context.identity.name:
            raise PermissionDenied(  # the token would outlive the provider's confirmation
                f"{request.name} signs in at the identity provider; create a token instead:"
                f" adaptry token create NAME --for {request.name}"
            )
        with self.context.write() as tx:
            now, by = self.context.clock(), self.context.identity.name
            user = principals.find(tx, request.name)
            if user is None:
                _check_name("user", request.name)
                user = principals.insert(tx, "user", request.name, None, now, by)
            invited = invitations.invite(tx, user, now + timedelta(hours=request.hours), now, by)
            until = {"expires_at": invited.expires_at}
            self.context.record(tx, "invitation.create", _target(user.info), after=until)
            return invited

    def groups(self, cursor: str | None = None, limit: int = 50) -> Page[GroupInfo]:
        cursors.check_limit(limit)
        after = cursors.decode(cursor, "groups") if cursor is not None else None
        identity = self.context.identity
        with self.context.catalog.read() as tx:
            own = None if identity.may_administer else principals.find(tx, identity.name)
            if own is None and not identity.may_administer:
                return Page[GroupInfo](items=())
            found = principals.groups(tx, own, after, limit + 1, GROUP_MEMBERS_SHOWN)
        following = cursors.encode(found[limit - 1].name, "groups") if len(found) > limit else None
        return Page[GroupInfo](items=found[:limit], next=following)

    def _seen_group(self, tx: Transaction, name: str) -> GroupRecord:
        """The group. Raises `NotFound`, also for a group that the caller may not see."""
        found = existing_group(tx, name)
        if not self.context.identity.may_administer and not principals.is_in(
            tx, found, self.context.identity.name
        ):
            raise no_group(name)
        return found

    def create_group(self, name: str) -> GroupInfo:
        require_administrator(self.context, f"create the group {name}")
        if not _GROUP.fullmatch(name):
            raise Invalid(f"not a name for a group: {name[:100]!a} (1 to 64 letters, digits, '.', '_', '-')")
        with self.context.write() as tx:
            principals.insert_group(tx, name, self.context.clock(), self.context.identity.name)
            self.context.record(tx, "group.create", AuditTarget(name))
            return _group_info(tx, name)

    def delete_group(self, name: str) -> None:
        require_administrator(self.context, f"delete the group {name}")
        with self.context.write() as tx:
            group = existing_group(tx, name)
            could_administer = grants.has_administrator(tx)
            was = {"members": ", ".join(_group_info(tx, name, None).members)}
            claims = [one.claim for one in sign_ins.provider_groups(tx) if one.group == group.name]
            principals.delete_group(tx, group)
            require_administrator_left(tx, could_administer)
            for claim in claims:
                self.context.record(tx, "sso.unmap", AuditTarget(name), before={"claim": claim})
            self.context.record(tx, "group.delete", AuditTarget(name), before=was)

    def set_membership(self, group: str, principal: str, is_member: bool) -> GroupInfo:
        require_administrator(self.context, f"change who is in the group {group}")
        with self.context.write() as tx:
            could_administer = grants.has_administrator(tx)
            changed = principals.set_membership(
                tx, existing_group(tx, group), existing_principal(tx, principal), is_member
            )
            if not changed and not is_member:
                raise NotFound(f"{principal} is not in the group {group}")
            require_administrator_left(tx, could_administer)
            if changed:
                action, member = f"group.{'add' if is_member else 'remove'}", {"principal": principal}
                state = {"after": member} if is_member else {"before": member}
                self.context.record(tx, action, AuditTarget(group), **state)
            return _group_info(tx, group)


def _check_name(kind: PrincipalKind, name: str) -> None:
    """Raises `Invalid` for a name that no user or worker can have."""
    if not _NAME.fullmatch(name):
        raise Invalid(f"not a name for a {kind}: {name[:100]!a} (1 to 96 letters, digits and . _ @ + -)")
    require_unreserved(name)


def _target(principal: PrincipalInfo) -> AuditTarget:
    return AuditTarget(principal.name, principal.namespace)


def require_administrator(context: RegistryContext, what: str) -> None:
    """Raises `PermissionDenied` unless the caller is an administrator."""
    identity = context.identity
    if identity.may_administer:
        return
    if replace(identity, limit=None).may_administer:
        raise PermissionDenied(
            f"{identity.name} may not {what[:200]} with this token, which is limited; use one without limits"
        )
    raise PermissionDenied(f"{identity.name} may not {what[:200]}; it requires an administrator")


def managed_principal(context: RegistryContext, tx: Transaction, name: str, what: str) -> PrincipalRecord:
    """A principal that the caller manages: any principal for administrators; a service account of the
    namespace for holders of `token.manage`.

    Raises `PermissionDenied`, whether or not the principal exists, and `NotFound` for administrators.
    """
    found = principals.find(tx, name)
    namespace = found.info.namespace if found else None
    if namespace is None or not context.identity.may_in(
        "token.manage", namespace, Facts(now=context.clock())
    ):
        require_administrator(context, what)
    return _existing(found, name)


def require_in_namespace(context: RegistryContext, action: Action, namespace: str) -> None:
    """Raises `PermissionDenied` if the caller lacks `action` in the whole namespace."""
    decision = context.identity.decide(action, namespace, None, Facts(now=context.clock()))
    if not decision.is_allowed:
        raise PermissionDenied(f"{context.identity.name} may not do this in {namespace!r}: {decision.reason}")


def require_administrator_left(tx: Transaction, could_administer: bool) -> None:
    """Raises `Conflict` if a change removes the last administrator."""
    if could_administer and not grants.has_administrator(tx):
        raise Conflict(
            "the registry would have no administrator left; make another user an administrator first:"
            " adaptry grant add NAME admin '*'"
        )


def require_owner_left(context: RegistryContext, tx: Transaction, namespace: str, had_owner: bool) -> None:
    """Raises `Conflict` if a change by anyone but an administrator removes a namespace's last owner."""
    if had_owner and not context.identity.may_administer and not grants.has_owner(tx, namespace):
        raise Conflict(
            f"{namespace} would have no owner left; make another user an owner first (adaptry member set"
            f" {namespace} NAME --role owner), or ask an administrator to make this change"
        )


def managed_namespaces(context: RegistryContext, tx: Transaction) -> tuple[str, ...]:
    """The namespaces whose service accounts, and their tokens, the caller manages."""
    facts = Facts(now=context.clock())
    resources = [grant.resource for grant in context.identity.grants]
    if all(resource.is_one_namespace for resource in resources):
        named = {resource.namespaces for resource in resources}
    else:
        named = set(principals.namespaces(tx))
    return tuple(sorted(name for name in named if context.identity.may_in("token.manage", name, facts)))


def existing_principal(tx: Transaction, name: str) -> PrincipalRecord:
    """The principal. Raises `NotFound`."""
    return _existing(principals.find(tx, name), name)


def existing_group(tx: Transaction, name: str) -> GroupRecord:
    """The group. Raises `NotFound`."""
    if (found := principals.find_group(tx, name)) is None:
        raise no_group(name)
    return found


def no_group(name: str) -> NotFound:
    return NotFound(f"no group {name[:80]!a}; `adaptry group ls` shows the groups")


def _existing(found: PrincipalRecord | None, name: str) -> PrincipalRecord:
    if found is None:
        raise NotFound(
            f"no user, service account or worker {name[:100]!a}; `adaptry user ls` shows them, and"
            " `adaptry user invite` creates a user"
        )
    return found


def _group_info(tx: Transaction, name: str, member_limit: int | None = GROUP_MEMBERS_SHOWN) -> GroupInfo:
    return principals.group_info(tx, existing_group(tx, name), member_limit)


def _namespace_of(service_account: str) -> str:
    """The namespace of a service account's name. Raises `Invalid`."""
    try:
        return AdapterName.parse(service_account).namespace
    except InvalidRef as error:
        raise Invalid(
            f"not a name for a service account: {service_account[:100]!a} (its namespace and its name, such"
            " as acme/ci)"
        ) from error
