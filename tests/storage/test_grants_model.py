"""After any sequence of changes to grants, groups and members, all rights equal those of a simple model, in
single decisions, lists and searches.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from adaptry.adapters.adapter import open_dir
from adaptry.core.access.actions import Action
from adaptry.core.errors import NotFound
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.access import GrantRequest, MemberChange, TokenRequest
from adaptry.registry.pagination import iter_items
from adaptry.storage import tokens
from adaptry.storage.connect import open_in_memory
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora

USERS = ("ada", "bob")
GROUP = "team"
ADAPTERS = ("acme/tone", "acme/tone-2", "acme/voice", "evil/tone")
RESOURCES = {
    "acme": lambda name: name.startswith("acme/"),
    "acme/tone": lambda name: name == "acme/tone",
    "acme/tone*": lambda name: name.startswith("acme/tone"),
    "e*": lambda name: name.startswith("evil/"),
    "*": lambda name: True,
}
ALLOWS: dict[str, frozenset[Action]] = {
    "read": frozenset({"read"}),
    "viewer": frozenset({"read"}),
    "push": frozenset({"push"}),
    "contributor": frozenset({"read", "push"}),
}
ACTIONS: tuple[Action, ...] = ("read", "push")
HOLDERS = (*USERS, GROUP)


@cache
def filled() -> tuple[LocalRegistry, dict[str, str]]:
    """A registry with the adapters, the group and the users, and the users' tokens."""
    registry = open_in_memory()
    secrets: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        lora = open_dir(tiny_lora(Path(folder) / "lora"))
        for name in ADAPTERS:
            push(registry, lora, name)
    for user in USERS:
        registry.principals.create("user", user)
        secrets[user] = registry.tokens.create(TokenRequest(name="t", principal=user)).secret
    registry.principals.create_group(GROUP)
    return registry, secrets


class Grants(RuleBasedStateMachine):
    """The registry, and a model of it: a set of (holder, permission, resource), and the members of the
    group.
    """

    def __init__(self) -> None:
        super().__init__()
        self.registry, self.secrets = filled()
        for one in iter_items(lambda cursor: self.registry.grants.list(cursor=cursor)):
            self.registry.grants.remove(one.id)
        for user in USERS:
            self.registry.principals.set_disabled(user, False)
        for group in self.registry.principals.groups().items:
            for member in group.members:
                self.registry.principals.set_membership(GROUP, member, False)
        self.granted: dict[tuple[str, str, str], int] = {}
        self.in_group: set[str] = set()
        self.disabled: set[str] = set()

    @rule(
        holder=st.sampled_from(HOLDERS),
        permission=st.sampled_from(sorted(ALLOWS)),
        resource=st.sampled_from(sorted(RESOURCES)),
    )
    def grant(self, holder: str, permission: str, resource: str) -> None:
        who = {"group": holder} if holder == GROUP else {"principal": holder}
        added = self.registry.grants.add(GrantRequest(permission=permission, resource=resource, **who))
        known = self.granted.setdefault((holder, permission, resource), added.id)
        assert known == added.id

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        if self.granted:
            chosen = data.draw(st.sampled_from(sorted(self.granted)))
            self.registry.grants.remove(self.granted.pop(chosen))

    @rule(holder=st.sampled_from(HOLDERS), role=st.sampled_from([None, "viewer", "contributor"]))
    def set_member(self, holder: str, role: str | None) -> None:
        who = {"group": holder} if holder == GROUP else {"principal": holder}
        in_acme = [key for key in self.granted if key[0] == holder and key[2] == "acme"]
        roles = [key for key in in_acme if key[1] in ("viewer", "contributor")]
        try:
            members = self.registry.grants.set_member(
                "acme", MemberChange.model_validate({**who, "role": role})
            )
        except NotFound:
            assert role is None
            assert not roles
            return
        for key in roles:
            del self.granted[key]
        if role is not None:
            (now,) = (
                one for one in members.members if holder in (one.principal, one.group)
            )  # one role, the new one
            self.granted[holder, role, "acme"] = now.id

    @rule(user=st.sampled_from(USERS), is_member=st.booleans())
    def change_group(self, user: str, is_member: bool) -> None:
        try:
            found = self.registry.principals.set_membership(GROUP, user, is_member)
        except NotFound:
            assert user not in self.in_group
            return
        (self.in_group.add if is_member else self.in_group.discard)(user)
        assert set(found.members) == self.in_group

    @rule(user=st.sampled_from(USERS), is_disabled=st.booleans())
    def disable(self, user: str, is_disabled: bool) -> None:
        self.registry.principals.set_disabled(user, is_disabled)
        (self.disabled.add if is_disabled else self.disabled.discard)(user)

    @invariant()
    def everybody_has_the_rights_of_the_model(self) -> None:
        for user in set(USERS) - self.disabled:
            identity = tokens.identify(self.registry.catalog, self.secrets[user])
            readable = {name for name in ADAPTERS if self._allows(user, "read", name)}
            for name in ADAPTERS:
                for action in ACTIONS:
                    expected = name in readable and self._allows(user, action, name)
                    assert identity.may(action, AdapterName.parse(name)) == expected
            theirs = self.registry.on_behalf_of(identity)
            assert {str(one.name) for one in theirs.adapters.list().items} == readable
            assert {str(one.name) for one in theirs.versions.search("").items} == readable

    def _allows(self, user: str, action: Action, name: str) -> bool:
        holders = {user, GROUP} if user in self.in_group else {user}
        return any(
            holder in holders and action in ALLOWS[permission] and RESOURCES[resource](name)
            for holder, permission, resource in self.granted
        )


Grants.TestCase.settings = settings(
    max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnySequenceOfGrants = Grants.TestCase
