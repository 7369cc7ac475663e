"""Promises about approvals: each counts for one move, as long as the approver has the right to give it."""

from __future__ import annotations

import pytest

from adaptry.core.errors import CheckFailed, Conflict, NotFound, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.operations.transfer import push
from adaptry.registry.access import GrantRequest
from adaptry.registry.interface import Registry
from adaptry.testing.contract.fixtures import ADA, TONE, ContractFixtures, MakeLora, MakeRegistry
from adaptry.testing.contract.policies import ANN, BOB, OWNER, make_group, set_policy

BY_TWO = 'alias: prod\nrequire:\n- approvals("release") >= 2\n'
BY_ONE = BY_TWO.replace("2", "1")


class ApprovalsContract(ContractFixtures):
    """`policies.approve`, and the condition `approvals`."""

    def test_members_of_a_group_approve_one_move_and_not_what_they_pushed_or_move_themselves(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora
    ) -> None:
        ann, bob = make_registry(ANN), make_registry(BOB)
        first, second = (push(ann, lora(seed), TONE).version.digest for seed in (1, 2))
        make_group(registry, "release", ("ann", "bob", "cleo", "dan"))
        _grant(registry, "ann", "bob", "cleo")
        set_policy(make_registry(OWNER), BY_TWO)
        cleo, dan = (
            make_registry(Identity.with_role(name, "maintainer", ("acme",))) for name in ("cleo", "dan")
        )
        for one in (ann, bob, cleo):
            one.policies.approve(TONE, "prod", first)
            one.policies.approve(TONE, "prod", first)  # a second time, which changes nothing
        void = {one.by: one.is_void for one in bob.policies.approvals(TONE, "prod")}
        assert void == {"ann": True, "bob": False, "cleo": False}
        with pytest.raises(CheckFailed, match=r"1 approval of release \(cleo\); not counted: ann, who"):
            bob.aliases.move(TONE, "prod", first, was=None)
        with pytest.raises(PermissionDenied, match="approve"):
            make_registry(ADA).policies.approve(TONE, "prod", first)
        assert dan.aliases.move(TONE, "prod", first, was=None).number == 1
        with pytest.raises(Conflict, match="at version 1 already"):
            bob.policies.approve(TONE, "prod", first)
        assert {one.is_void for one in bob.policies.approvals(TONE, "prod")} == {True}
        with pytest.raises(CheckFailed, match="0 approvals"):
            dan.aliases.move(TONE, "prod", second, was=1)
        bob.policies.approve(TONE, "prod", second)
        assert bob.policies.withdraw_approval(TONE, "prod", second).is_void
        with pytest.raises(NotFound, match="has not approved version 2"):
            bob.policies.withdraw_approval(TONE, "prod", second)

    def test_an_approval_may_require_that_the_alias_is_where_it_was_seen(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        olga = make_registry(OWNER)
        first, second = (push(olga, lora(seed), TONE).version.digest for seed in (1, 2))
        assert olga.policies.approve(TONE, "prod", first, 0).generation == 0
        seen = olga.aliases.move(TONE, "prod", first, was=None).generation
        for stale in (0, seen + 1):
            with pytest.raises(Conflict, match="has moved since you looked"):
                olga.policies.approve(TONE, "prod", second, stale)
        assert [one.digest for one in olga.policies.approvals(TONE, "prod")] == [first]
        assert olga.policies.approve(TONE, "prod", second, seen).digest == second

    def test_an_approval_counts_only_while_its_author_may_approve(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora
    ) -> None:
        ann = make_registry(ANN)

        def is_void() -> bool:
            (approval,) = ann.policies.approvals(TONE, "prod")
            return approval.is_void

        digest = push(ann, lora(), TONE).version.digest
        make_group(registry, "release", ("cleo",))
        set_policy(make_registry(OWNER), BY_ONE)
        cleo = make_registry(Identity.with_role("cleo", "maintainer", ("acme",)))
        _grant(registry, "cleo")
        cleo.policies.approve(TONE, "prod", digest)
        assert ann.policies.evaluate(TONE, "prod", digest).is_allowed
        assert not is_void()
        registry.principals.set_disabled("cleo", is_disabled=True)
        assert is_void()
        with pytest.raises(CheckFailed, match="not counted: cleo, who may no longer approve"):
            ann.aliases.move(TONE, "prod", digest, was=None)
        registry.principals.set_disabled("cleo", is_disabled=False)
        for grant in registry.grants.list(principal="cleo").items:
            registry.grants.remove(grant.id)
        assert is_void()
        with pytest.raises(CheckFailed, match="not counted: cleo, who may no longer approve"):
            ann.aliases.move(TONE, "prod", digest, was=None)
        _grant(registry, "cleo")
        assert not is_void()
        assert ann.aliases.move(TONE, "prod", digest, was=None).number == 1


def _grant(registry: Registry, *names: str) -> None:
    for name in names:
        registry.grants.add(GrantRequest(principal=name, permission="maintainer", resource="acme"))
