"""Grants, which give a principal rights, and limits, which narrow a token's."""

from __future__ import annotations

from fnmatch import fnmatchcase

from adaptry.core.access.actions import ACTIONS, Action
from adaptry.core.access.conditions import Condition, Facts
from adaptry.core.access.resources import ALL_NAMES, Resource
from adaptry.core.access.roles import ROLES, Actions, actions_of
from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Grant:
    """`permission`, a role or an action, on `resource`, where all `conditions` hold.

    `id` is the number that `adaptry grant ls` shows, and `group` the group through which the holder has it.
    """

    permission: str
    resource: Resource
    conditions: tuple[Condition, ...] = ()
    id: int | None = None
    group: str | None = None

    @property
    def actions(self) -> Actions:
        return actions_of(self.permission)

    @property
    def is_administration(self) -> bool:
        """Whether the grant allows every action everywhere."""
        return self.resource.is_everything and "admin" in self.actions

    def allows(self, action: Action, namespace: str, name: str | None) -> bool:
        """Whether the grant covers the action on the target, regardless of its conditions."""
        return self.is_administration or (action in self.actions and self.resource.covers(namespace, name))

    def holds(self, facts: Facts) -> bool:
        return all(condition.holds(facts) for condition in self.conditions)

    def describe(self) -> str:
        """One line for people."""
        text = f"{self.permission} on {self.resource}"
        if self.conditions:
            text += " if " + " and ".join(map(str, self.conditions))
        return f"{text} (group {self.group})" if self.group else text


@dataclass(frozen=True, slots=True)
class Limit:
    """The limits of a token: roles or actions, and resources. Without either, there is no limit.

    A token that allows anything on a resource also allows reading it.
    """

    permissions: tuple[str, ...] | None = None
    resources: tuple[Resource, ...] | None = None

    def allows(self, action: Action, namespace: str, name: str | None) -> bool:
        if not self.allows_somewhere(action):
            return False
        return self.resources is None or any(one.covers(namespace, name) for one in self.resources)

    def names_in(self, action: Action, namespace: str) -> frozenset[str]:
        """The names in the namespace, as in `Resource.names`, on which it allows the action."""
        if not self.allows_somewhere(action):
            return frozenset()
        if self.resources is None:
            return frozenset((ALL_NAMES,))
        return frozenset(one.names for one in self.resources if fnmatchcase(namespace, one.namespaces))

    def allows_somewhere(self, action: Action) -> bool:
        if self.permissions is None or action == "read":
            return True
        allowed = frozenset[Action]().union(*map(actions_of, self.permissions))
        return action in allowed or ("admin" in allowed and self.includes_everything)

    def includes(self, other: Limit | None) -> bool:
        """Whether a token with the limit `other` (None: no limit) allows nothing beyond this limit, for
        certain.
        """
        if other is None:
            return self.permissions is None and self.includes_everything
        if self.permissions is not None:
            if other.permissions is None:
                return False
            if not all(
                map(self.allows_somewhere, frozenset[Action]().union(*map(actions_of, other.permissions)))
            ):
                return False
        if other.resources is None or self.resources is None:
            return self.includes_everything
        return all(any(one.contains(each) for one in self.resources) for each in other.resources)

    @property
    def includes_everything(self) -> bool:
        return self.resources is None or any(one.is_everything for one in self.resources)


def check_permission(permission: str) -> str:
    """Raises `Invalid` if the text is neither a role nor an action."""
    if not actions_of(permission):
        raise Invalid(
            f"neither a role nor an action: {permission[:40]!a} (roles: {', '.join(ROLES)};"
            f" actions: {', '.join(ACTIONS)})"
        )
    return permission


def check_grant(grant: Grant) -> Grant:
    """Raises `Invalid` if the permission does not exist or cannot have these conditions."""
    check_permission(grant.permission)
    if grant.conditions and grant.permission in ROLES:
        raise Invalid(
            f"a role has no conditions, because it includes read: grant single actions instead of"
            f" {grant.permission}"
        )
    for condition in grant.conditions:
        for action in grant.actions:
            if not condition.is_about(action):
                raise Invalid(f"the condition {condition} does not apply to the action {action}")
    if "admin" in grant.actions and grant.permission != "admin" and not grant.resource.is_everything:
        raise Invalid("the action admin is granted on * only")
    return grant
