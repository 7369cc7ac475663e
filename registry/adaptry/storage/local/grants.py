"""The grants role of a local registry: grants, members of namespaces, and explanations of decisions."""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.core.access.conditions import Condition, Facts
from adaptry.core.access.delegation import require_delegation
from adaptry.core.access.grants import Grant, check_grant
from adaptry.core.access.resources import Resource
from adaptry.core.errors import Invalid, NotFound, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Label, Ref, parse_namespace
from adaptry.registry.access import (
    AccessDecision,
    AccessQuery,
    GrantInfo,
    GrantRequest,
    MemberChange,
    NamespaceMembers,
    Subject,
)
from adaptry.registry.grants import Grants
from adaptry.registry.inference import InferenceDecision, InferenceRequest
from adaptry.registry.records import Page
from adaptry.storage.catalog import adapters, cursors, grants, principals
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.grants import GrantRecord, Holder
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.inference import authorize_inference
from adaptry.storage.local.principals import (
    existing_group,
    existing_principal,
    require_administrator_left,
    require_in_namespace,
    require_owner_left,
)


@dataclass(frozen=True)
class LocalGrants(Grants):
    """The grants of a local registry."""

    context: RegistryContext

    def add(self, request: GrantRequest) -> GrantInfo:
        grant = check_grant(
            Grant(
                request.permission,
                Resource.parse(request.resource),
                tuple(dict.fromkeys(map(Condition.parse, request.conditions))),
            )
        )
        self._require_delegation(grant)
        with self.context.write() as tx:
            holder = _holder(tx, request)
            now = self.context.clock()
            added = grants.add(tx, holder, grant, now, self.context.identity.name)
            if added.info.created_at == now:
                self.context.record(
                    tx, "grant.add", AuditTarget.of_grant(grant.resource), after=_facts(added)
                )
            return added.info

    def list(
        self,
        namespace: str | None = None,
        principal: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        *,
        with_members: bool = True,
    ) -> Page[GrantInfo]:
        identity = self.context.identity
        if not (identity.may_administer or (principal == identity.name and namespace is None)):
            if namespace is None:
                raise PermissionDenied(
                    f"{identity.name} may list the grants of one namespace at a time (--namespace NAME)"
                )
            require_in_namespace(self.context, "member.manage", namespace)
        cursors.check_limit(limit)
        about = f"grants {namespace} {principal} {with_members}"
        after = cursors.decode_number(cursor, about)
        with self.context.catalog.read() as tx:
            of = existing_principal(tx, principal) if principal is not None else None
            found = grants.page(tx, namespace, of, after, limit + 1, with_members=with_members)
        following = cursors.encode(found[limit - 1].info.id, about) if len(found) > limit else None
        return Page[GrantInfo](items=tuple(record.info for record in found[:limit]), next=following)

    def remove(self, id: int) -> None:
        with self.context.write() as tx:
            found = grants.by_id(tx, id)
            if found is None or not self._may_see(found):
                raise NotFound(f"no grant {id}; `adaptry grant ls` shows those that you may see")
            self._require_delegation(found.grant)
            namespace = found.grant.resource.namespaces
            had_owner = grants.has_owner(tx, namespace)
            self._remove(tx, (found,))
            require_owner_left(self.context, tx, namespace, had_owner)
            self.context.record(
                tx, "grant.remove", AuditTarget.of_grant(found.grant.resource), before=_facts(found)
            )

    def members(self, namespace: str, cursor: str | None = None, limit: int = 50) -> NamespaceMembers:
        cursors.check_limit(limit)
        namespace = parse_namespace(namespace)
        if not self.context.identity.has_namespace(namespace):
            raise PermissionDenied(f"{self.context.identity.name} is not a member of {namespace!r}")
        with self.context.catalog.read() as tx:
            return _members(tx, namespace, cursor, limit)

    def set_member(self, namespace: str, change: MemberChange) -> NamespaceMembers:
        resource = Resource(parse_namespace(namespace))
        new = check_grant(Grant(change.role, resource)) if change.role else None
        require_in_namespace(self.context, "member.manage", namespace)
        if new:
            self._require_delegation(new)
        with self.context.write() as tx:
            holder = _holder(tx, change)
            old = grants.members(tx, namespace, holder)
            if not old and new is None:
                raise NotFound(f"{change} is not a member of {namespace}; `adaptry member ls` lists them")
            for record in old:
                self._require_delegation(record.grant)
            had_owner = grants.has_owner(tx, namespace)
            self._remove(tx, [one for one in old if new is None or one.info.permission != new.permission])
            if new:
                grants.add(tx, holder, new, self.context.clock(), self.context.identity.name)
            require_owner_left(self.context, tx, namespace, had_owner)
            roles = ", ".join(record.info.permission for record in old) or None
            self.context.record(
                tx,
                "member.set",
                AuditTarget(namespace, namespace),
                before={"member": str(change), "role": roles} if roles else None,
                after={"member": str(change), "role": change.role} if change.role else None,
            )
            return _members(tx, namespace)

    def set_accountable(self, namespace: str, principal: str | None) -> NamespaceMembers:
        namespace = parse_namespace(namespace)
        require_in_namespace(self.context, "member.manage", namespace)
        with self.context.write() as tx:
            found = existing_principal(tx, principal) if principal is not None else None
            if found is not None and found.info.kind != "user":
                raise Invalid(f"{principal} is a {found.info.kind}; only a user can be accountable")
            now, by = self.context.clock(), self.context.identity.name
            was = {"user": grants.accountable(tx, namespace)}
            grants.set_accountable(tx, namespace, found, now, by)
            target = AuditTarget(namespace, namespace)
            self.context.record(tx, "member.account", target, before=was, after={"user": principal})
            return _members(tx, namespace)

    def explain(self, query: AccessQuery) -> AccessDecision:
        name, target = _target(query.ref)
        namespace = name.namespace if name else query.ref
        caller = self.context.identity
        if query.principal != caller.name and not caller.may_administer:
            require_in_namespace(self.context, "member.manage", namespace)
        alias = target.label if isinstance(target, Label) else None
        facts = Facts(alias, query.state, self.context.clock())
        with self.context.catalog.read() as tx:
            identity = caller if query.principal == caller.name else _identity(tx, query.principal)
            adapter = adapters.find(tx, name) if name and query.action == "read" else None
        decision = identity.decide(query.action, namespace, name.name if name else None, facts)
        if not decision.is_allowed and adapter is not None and adapter.visibility == "public":
            is_allowed, reason, grant = True, f"{name} is public", None
        else:
            is_allowed, reason = decision.is_allowed, decision.reason
            grant = decision.grant.id if decision.grant else None
        return AccessDecision(
            is_allowed=is_allowed,
            reason=reason,
            principal=query.principal,
            action=query.action,
            resource=query.ref,
            grant=grant,
        )

    def authorize(self, request: InferenceRequest) -> InferenceDecision:
        return authorize_inference(self.context, request)

    def _require_delegation(self, grant: Grant) -> None:
        require_delegation(self.context.identity, grant, Facts(now=self.context.clock()))

    def _may_see(self, record: GrantRecord) -> bool:
        identity = self.context.identity
        if identity.may_administer or record.info.principal == identity.name:
            return True
        namespace = record.grant.resource.namespaces
        return identity.may_in("member.manage", namespace, Facts(now=self.context.clock()))

    def _remove(self, tx: Transaction, records: Sequence[GrantRecord]) -> None:
        could_administer = grants.has_administrator(tx)
        grants.remove(tx, [record.info.id for record in records])
        require_administrator_left(tx, could_administer)


def _facts(record: GrantRecord) -> dict[str, object]:
    info = record.info
    conditions = " and ".join(info.conditions) or None
    return {
        "grant": info.id,
        "principal": info.principal,
        "group": info.group,
        "permission": info.permission,
        "conditions": conditions,
    }


def _holder(tx: Transaction, subject: Subject) -> Holder:
    """The holder of a grant. Raises `NotFound`."""
    if subject.group is not None:
        return existing_group(tx, subject.group)
    assert subject.principal is not None
    return existing_principal(tx, subject.principal)


def _members(tx: Transaction, namespace: str, cursor: str | None = None, limit: int = 50) -> NamespaceMembers:
    about = f"members {namespace}"
    after = cursors.decode_number(cursor, about)
    found = grants.members(tx, namespace, after=after, limit=limit + 1)
    return NamespaceMembers(
        namespace=namespace,
        accountable=grants.accountable(tx, namespace),
        members=tuple(record.info for record in found[:limit]),
        next=cursors.encode(found[limit - 1].info.id, about) if len(found) > limit else None,
    )


def _target(ref: str) -> tuple[AdapterName | None, object]:
    """The adapter of a query, with the selector of a version; None for a namespace."""
    if "/" not in ref:
        parse_namespace(ref)
        return None, None
    parsed = Ref.parse(ref)
    return parsed.name, parsed.selector


def _identity(tx: Transaction, name: str) -> Identity:
    """A principal without any token's limits. Raises `NotFound`."""
    found = existing_principal(tx, name)
    return Identity(name, principals.current_grants(tx, found.key), None, found.key)
