"""The policies role of a local registry: policies of aliases, approvals, and decisions that were made."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from adaptry.checks.runtimes import ENGINES, other_version, parse_runtime
from adaptry.core.access.conditions import Facts
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied, Unsupported
from adaptry.core.gates import process
from adaptry.core.gates.decision import PromotionDecision
from adaptry.core.gates.facts import GateFacts, VersionFact, calls_of
from adaptry.core.gates.policy import Policy, PolicyScope
from adaptry.core.identity import LOCAL
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import require_alias_allowed
from adaptry.core.refs import AdapterName, Number, Ref, parse_stored_alias
from adaptry.registry.aliases import MoveRequest
from adaptry.registry.policies import (
    ApprovalInfo,
    Policies,
    PolicyInfo,
    PolicyRequest,
    PromotionInfo,
    PromotionRecord,
)
from adaptry.registry.records import Page
from adaptry.storage.catalog import aliases, cursors, git_refs, policies, principals, promotions
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.policies import PolicyOwner, SeenPolicy
from adaptry.storage.catalog.versions import VersionRecord, to_record
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.gate_facts import Move, may_approve
from adaptry.storage.local.gates import decide, read_decided

_MAX_REFS = 5
"""Maximum number of branches and tags of which a new policy warns."""


@dataclass(frozen=True)
class LocalPolicies(Policies):
    """The policies of a local registry."""

    context: RegistryContext

    def set(self, request: PolicyRequest) -> PolicyInfo:
        scope, policy = PolicyScope.parse(request.scope), Policy.parse(request.text)
        with self.context.catalog.read() as tx:
            self._managed(tx, scope, policy.alias)
        process.check_conditions([one.source for one in policy.conditions])
        unread = _check_runtimes(policy)
        with self.context.write() as tx:
            owner = self._managed(tx, scope, policy.alias)
            warnings = (*unread, *_unknown_groups(tx, policy), *_unloadable_refs(tx, owner, policy))
            was = next(iter(policies.versions(tx, owner, policy.alias)), None)
            if was is not None and was.text == request.text:
                return was.model_copy(update={"warnings": warnings})
            now, by = self.context.clock(), self.context.identity.name
            found = policies.append(tx, owner, policy.alias, request.text, now, by)
            self._record(tx, "policy.set", was, found)
            return found.model_copy(update={"warnings": warnings})

    def list(self, scope: str | None = None) -> tuple[PolicyInfo, ...]:
        wanted = PolicyScope.parse(scope) if scope is not None else None
        with self.context.catalog.read() as tx:
            if wanted is not None:
                self._owner(tx, wanted)
            found = policies.every_in_force(tx)
        return tuple(one.info for one in found if _concerns(one.scope, wanted) and self._sees(one, wanted))

    def history(self, scope: str, alias: str) -> tuple[PolicyInfo, ...]:
        wanted = PolicyScope.parse(scope)
        with self.context.catalog.read() as tx:
            return policies.versions(tx, self._owner(tx, wanted), alias)

    def remove(self, scope: str, alias: str) -> None:
        wanted = PolicyScope.parse(scope)
        with self.context.write() as tx:
            owner = self._managed(tx, wanted, alias)
            was = next(iter(policies.versions(tx, owner, alias)), None)
            if was is None or was.text is None:
                raise NotFound(f"{scope} has no policy for {alias[:80]!a}; `adaptry policy ls` shows all")
            now, by = self.context.clock(), self.context.identity.name
            self._record(tx, "policy.remove", was, policies.append(tx, owner, alias, None, now, by))

    def evaluate(
        self,
        name: AdapterName,
        alias: str,
        to: Digest,
        *,
        condition: str | None = None,
        policy: str | None = None,
    ) -> PromotionDecision:
        parse_stored_alias(alias)

        def decided(tx: Transaction) -> PromotionDecision:
            adapter = self.context.readable_adapter(tx, name)
            if condition is not None or policy is not None:
                self.context.require("alias.move", name, alias=alias)
            target = to_record(self.context.resolve(tx, Ref.of_revision(name, to)))
            require_alias_allowed(alias, target.state, target.number)
            found = aliases.find(tx, adapter, alias)
            by = self.context.identity.name
            move = Move(adapter, alias, target, found, by, MoveRequest(condition=condition), policy)
            decision = decide(self.context, tx, move)
            return decision or _without_conditions(move, self.context)

        return read_decided(self.context, decided)

    def approve(
        self, name: AdapterName, alias: str, to: Digest, generation: int | None = None
    ) -> ApprovalInfo:
        with self.context.write() as tx:
            adapter, target = self._approved(tx, name, alias, to)
            found = aliases.find(tx, adapter, alias)
            if generation is not None and generation != (found.generation if found else 0):
                raise Conflict(f"{name}@{alias} has moved since you looked at it; look again and retry")
            if found is not None and found.digest == to:
                raise Conflict(f"{name}@{alias} is at version {found.number} already")
            require_alias_allowed(alias, target.state, target.number)
            now, by = self.context.clock(), self.context.identity.name
            info, is_new = promotions.approve(tx, adapter, alias, target, now, by)
            if is_new:
                after = {"version": target.number, "digest": target.digest, "generation": info.generation}
                self.context.record(tx, "approval.give", _about(name, alias), after=after)
            return self._void_unless_counted(tx, info)

    def withdraw_approval(self, name: AdapterName, alias: str, to: Digest) -> ApprovalInfo:
        with self.context.write() as tx:
            adapter, target = self._approved(tx, name, alias, to)
            now, by = self.context.clock(), self.context.identity.name
            info = promotions.withdraw_approval(tx, adapter, alias, target, now, by)
            if info is None:
                raise NotFound(f"{by} has not approved version {target.number} for {name}@{alias}")
            before = {"version": target.number, "digest": target.digest, "generation": info.generation}
            self.context.record(tx, "approval.withdraw", _about(name, alias), before=before)
            return info

    def approvals(self, name: AdapterName, alias: str) -> tuple[ApprovalInfo, ...]:
        with self.context.catalog.read() as tx:
            found = promotions.approvals(tx, self.context.readable_adapter(tx, name), alias)
            return tuple(self._void_unless_counted(tx, one) for one in found)

    def promotions(
        self, name: AdapterName, alias: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[PromotionInfo]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            return promotions.page(tx, self.context.readable_adapter(tx, name), alias, cursor, limit)

    def promotion(self, id: int) -> PromotionRecord:
        with self.context.catalog.read() as tx:
            found = promotions.find(tx, id)
            if found is not None:
                try:
                    self.context.readable_adapter(tx, found.name)
                except NotFound:
                    found = None
        if found is None:
            raise NotFound(f"no promotion {id}; `adaptry promotion ls NAME` shows those of an adapter")
        return found

    def _approved(
        self, tx: Transaction, name: AdapterName, alias: str, to: Digest
    ) -> tuple[AdapterRecord, VersionRecord]:
        """The version to approve. Raises `NotFound`, `PermissionDenied`, `Unsupported`."""
        parse_stored_alias(alias)
        adapter = self.context.writable_adapter(tx, name, "approve", alias=alias)
        if self.context.identity.name == LOCAL.name:
            raise Unsupported(
                "approvals are not possible in a registry that is opened as a folder, which has no users;"
                " approve through its server (--registry URL)"
            )
        return adapter, to_record(self.context.resolve(tx, Ref.of_revision(name, to)))

    def _void_unless_counted(self, tx: Transaction, info: ApprovalInfo) -> ApprovalInfo:
        """The approval; void if no condition counts it now."""
        if info.is_void:
            return info
        version = self.context.resolve(tx, Ref(info.name, Number(info.number)))
        is_counted = info.by != version.created_by and may_approve(
            tx, info.by, info.name, info.alias, self.context.clock()
        )
        return info if is_counted else info.model_copy(update={"is_void": True})

    def _owner(self, tx: Transaction, scope: PolicyScope) -> PolicyOwner:
        """The owner of policies. Raises `NotFound` for an adapter or namespace that the caller may not
        see.
        """
        if scope.adapter is not None:
            return PolicyOwner(scope, self.context.readable_adapter(tx, scope.adapter))
        if not self.context.identity.readable_names(scope.namespace):
            raise NotFound(f"no namespace {scope}")
        return PolicyOwner(scope, None)

    def _managed(self, tx: Transaction, scope: PolicyScope, alias: str) -> PolicyOwner:
        """The owner, if the caller may change policies there. Raises `NotFound`, and `PermissionDenied` for
        other callers.
        """
        parse_stored_alias(alias)
        owner = self._owner(tx, scope)
        identity, facts = self.context.identity, Facts(alias, None, self.context.clock())
        decision = identity.decide("policy.manage", scope.namespace, scope.name, facts)
        if not decision.is_allowed:
            raise PermissionDenied(
                f"{identity.name} may not change policies of {scope} (policy.manage): {decision.reason}; ask"
                f" an owner of {scope.namespace!r}"
            )
        return owner

    def _sees(self, policy: SeenPolicy, wanted: PolicyScope | None) -> bool:
        identity, adapter = self.context.identity, policy.scope.adapter
        if adapter is not None:
            return identity.may_read(adapter, policy.visibility)
        is_of_read_adapter = wanted is not None and wanted.name is not None
        return is_of_read_adapter or bool(identity.readable_names(policy.scope.namespace))

    def _record(self, tx: Transaction, action: str, was: PolicyInfo | None, now: PolicyInfo) -> None:
        self.context.record(
            tx,
            action,
            AuditTarget(now.scope, now.scope.partition("/")[0], now.alias),
            before=_version_of(was) if was is not None and was.text is not None else None,
            after=_version_of(now) if now.text is not None else None,
        )


def _check_runtimes(policy: Policy) -> tuple[str, ...]:
    """A warning for each version of an engine that the engine's rules do not cover. Raises `Invalid` for an
    unknown engine or option, because no version could meet the condition.
    """
    warnings: dict[str, None] = {}
    for condition in policy.conditions:
        for call in calls_of([condition], "fits"):
            try:
                runtime = parse_runtime(call.text("runtime"))
            except Invalid as error:
                raise Invalid(f"{error.message}, in the condition {condition.source[:100]!a}") from None
            if (reason := other_version(ENGINES[runtime.engine], runtime)) is not None:
                warnings[
                    f"fits({call.text('runtime')!r}) may be wrong: {reason}; `adaptry runtime ls` shows the"
                    " versions of the rules"
                ] = None
    return tuple(warnings)


def _unknown_groups(tx: Transaction, policy: Policy) -> tuple[str, ...]:
    """A warning for each group that does not exist (yet)."""
    named = dict.fromkeys(call.text("group") for call in calls_of(policy.conditions, "approvals"))
    return tuple(
        f"there is no group {group}, so approvals({group!r}) is not known and the alias {policy.alias} cannot"
        f" move; an administrator can create the group: adaptry group create {shlex.quote(group)}"
        for group in named
        if principals.find_group(tx, group) is None
    )


def _unloadable_refs(tx: Transaction, owner: PolicyOwner, policy: Policy) -> Iterator[str]:
    """A warning for each branch or tag with the alias's name: it resolves to nothing while the policy is in
    force, because moving it could bypass the policy.
    """
    found = git_refs.owners_of(tx, policy.alias, owner.scope.namespace, owner.adapter, _MAX_REFS)
    for name, kind, written in found:
        yield (
            f"{name} has a {kind} {written}, which cannot be loaded by this name while the policy is in"
            f" force; delete it (`hf repos {kind} delete {name} {written}`), and promote a version to"
            f" {policy.alias}"
        )


def _concerns(scope: PolicyScope, wanted: PolicyScope | None) -> bool:
    """Whether a policy is among those requested."""
    if wanted is None:
        return True
    is_same_place = wanted.name is None or scope.name in (None, wanted.name)
    return scope.namespace == wanted.namespace and is_same_place


def _version_of(info: PolicyInfo) -> dict[str, object]:
    return {"version": info.version, "digest": info.digest}


def _about(name: AdapterName, alias: str) -> AuditTarget:
    return AuditTarget(str(name), name.namespace, alias)


def _without_conditions(move: Move, context: RegistryContext) -> PromotionDecision:
    """The decision for a move without conditions."""
    to, found = move.to, move.current
    return PromotionDecision(
        name=move.adapter.name,
        alias=move.alias,
        number=to.number,
        digest=to.digest,
        was_number=found.number if found else None,
        was_digest=found.digest if found else None,
        generation=found.generation if found else None,
        at=context.clock(),
        by=move.by,
        verdict="met",
        facts=GateFacts(subject=VersionFact(number=to.number, digest=to.digest, state=to.state)),
    )
