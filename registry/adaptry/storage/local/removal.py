"""The rights that a deletion or a move to another name requires, in addition to `delete` and `push`.

Neither may undo a decision that the caller may not undo directly: a policy of an alias, or a recall. A move
also takes everything that the adapter has to its new name, so the caller must be allowed to create it there.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.core.access.actions import Action
from adaptry.core.errors import PermissionDenied
from adaptry.core.refs import AdapterName
from adaptry.core.states import State
from adaptry.registry.aliases import PRODUCTION
from adaptry.storage.catalog import aliases, git_refs, policies, states
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext


def require_deletable(context: RegistryContext, tx: Transaction, adapter: AdapterRecord) -> None:
    """Raises `PermissionDenied` if deleting the adapter would end policies or recalls."""
    if policies.has_adapter_policy(tx, adapter):
        context.require("policy.manage", adapter.name)
    for action, reason in _recalls(tx, adapter):
        _require(context, action, adapter, reason)


def require_movable(
    context: RegistryContext, tx: Transaction, adapter: AdapterRecord, to: AdapterName
) -> None:
    """Raises `PermissionDenied` if a policy would no longer apply under the new name, or if the caller could
    undo a recall there but not under the old name.
    """
    namespace = adapter.name.namespace
    if policies.has_adapter_policy(tx, adapter):
        context.require("policy.manage", adapter.name)
    is_leaving = to.namespace != namespace
    if is_leaving and policies.has_namespace_policy(tx, namespace):
        reason = f"the policies of {namespace!r} would no longer apply to it"
        _require(context, "policy.manage", adapter, reason)
    for action, reason in _recalls(tx, adapter):
        if is_leaving or context.may(action, to):
            _require(context, action, adapter, reason)


def _recalls(tx: Transaction, adapter: AdapterRecord) -> Iterator[tuple[Action, str]]:
    """The right to undo each kind of recall that the adapter has, and the recall in words."""
    withheld = states.withheld_numbers(tx, adapter)
    actions: tuple[tuple[State, Action], ...] = (("revoked", "policy.manage"), ("quarantined", "state.set"))
    for state, action in actions:
        if numbers := withheld.get(state):
            what = "versions" if len(numbers) > 1 else "version"
            are = "are" if len(numbers) > 1 else "is"
            yield action, f"{what} {', '.join(map(str, numbers))} {are} {state}, which this would undo"


def require_admissible(
    context: RegistryContext, tx: Transaction, moved: AdapterRecord, was: AdapterName
) -> None:
    """Raises `PermissionDenied` if the moved adapter has something that the caller may not create under its
    new name: visibility for everyone, an alias, a branch or tag called `prod`, or an alias that the policies
    of the new namespace have not allowed.
    """
    if moved.visibility == "public":
        context.require("state.set", moved.name)
    for held in aliases.infos(tx, moved):
        context.require("alias.move", moved.name, alias=held.alias)
        if moved.name.namespace != was.namespace and policies.in_force(tx, moved, held.alias):
            context.require("policy.override", moved.name, alias=held.alias)
    if any(ref.name.lower() == PRODUCTION for ref in git_refs.list_refs(tx, moved)):
        context.require("alias.move", moved.name, alias=PRODUCTION)


def _require(context: RegistryContext, action: Action, adapter: AdapterRecord, reason: str) -> None:
    if not context.may(action, adapter.name):
        raise PermissionDenied(
            f"{context.identity.name} may not delete or move {adapter.name}: {reason}"
            f" ({action}); ask an owner of {adapter.name.namespace!r}"
        )
