"""Promises about deletions and renames: they never undo a policy or a recall, or create anything that the
caller may not create.
"""

from __future__ import annotations

import pytest

from adaptry.core.access.grants import Grant
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, StateChange
from adaptry.testing.contract.fixtures import TONE, ContractFixtures, MakeLora, MakeRegistry
from adaptry.testing.contract.policies import ANN, GOOD_ENOUGH, OWNER, set_policy

OLD, HOME = (AdapterName.parse(text) for text in ("acme/old", "mia/tone"))
MIA = Identity(
    "mia",
    (
        *Identity.with_role("mia", "maintainer", ("acme",)).grants,
        *Identity.with_role("mia", "owner", ("mia",)).grants,
    ),
)
"""A maintainer of acme who owns another namespace."""
CAL = Identity(
    "cal",
    (
        *Identity.with_role("cal", "contributor", ("acme",)).grants,
        *Identity.with_role("cal", "owner", ("mia",)).grants,
    ),
)
"""A contributor to acme, likewise."""


class RemovalContract(ContractFixtures):
    """`adapters.delete` and `adapters.rename`, by callers with some of the rights."""

    def test_no_rename_or_deletion_sheds_a_policy_without_the_right_to_manage_it(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        ann = make_registry(ANN)
        push(ann, lora(), TONE)
        set_policy(make_registry(OWNER), GOOD_ENOUGH)
        with pytest.raises(PermissionDenied, match=r"policy\.manage"):
            ann.adapters.rename(TONE, type(TONE).parse("acme/old"))
        with pytest.raises(PermissionDenied, match=r"policy\.manage"):
            ann.adapters.delete(TONE)

    def test_no_rename_leaves_a_namespace_with_policies_without_the_right_to_manage_them(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        mia = make_registry(MIA)
        digest = push(mia, lora(), TONE).version.digest
        set_policy(make_registry(OWNER), GOOD_ENOUGH, "acme")
        with pytest.raises(PermissionDenied, match=r"policies of 'acme' would no longer .*policy\.manage"):
            mia.adapters.rename(TONE, HOME)
        assert mia.adapters.rename(TONE, OLD).name == OLD  # where the same policies apply
        with pytest.raises(CheckFailed):
            mia.aliases.move(OLD, "prod", digest, was=None)

    def test_no_rename_or_deletion_undoes_a_recall_without_the_right_to_undo_it(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        mia, olga = make_registry(MIA), make_registry(OWNER)
        push(mia, lora(), TONE)
        change_state(mia, Ref.parse("acme/tone@1"), StateChange(state="revoked", reason="leaks"))
        for undo in (lambda: mia.adapters.rename(TONE, HOME), lambda: mia.adapters.delete(TONE)):
            with pytest.raises(PermissionDenied, match=r"version 1 is revoked.*policy\.manage"):
                undo()
        with pytest.raises(CheckFailed, match="is revoked"):
            push(mia, lora(), OLD)
        assert mia.adapters.rename(TONE, OLD).name == OLD  # where it stays recalled
        olga.adapters.delete(OLD)

    def test_maintainers_delete_an_adapter_with_a_quarantined_version_which_they_could_restore(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        mia = make_registry(MIA)
        push(mia, lora(), TONE)
        change_state(mia, Ref.parse("acme/tone@1"), StateChange(state="quarantined", reason="leaks?"))
        deleter = make_registry(Identity("dan", (*_grants("dan", "viewer"), *_grants("dan", "delete"))))
        with pytest.raises(PermissionDenied, match=r"version 1 is quarantined.*state\.set"):
            deleter.adapters.delete(TONE)
        mia.adapters.delete(TONE)

    def test_a_rename_brings_nothing_that_the_caller_may_not_create(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        cal = make_registry(CAL)
        for seed, prepare, missing in (
            (1, _publish, r"state\.set"),
            (2, _tag, r"alias\.move"),
            (3, _alias, r"alias\.move"),
        ):
            name = AdapterName.parse(f"mia/tone-{seed}")
            digest = push(cal, lora(seed), name).version.digest
            prepare(cal, name, digest)
            with pytest.raises(PermissionDenied, match=missing):
                cal.adapters.rename(name, TONE)
            assert cal.adapters.get(name).name == name


def _publish(registry: Registry, name: AdapterName, digest: Digest) -> None:
    registry.adapters.edit(name, AdapterEdit(visibility="public"))


def _tag(registry: Registry, name: AdapterName, digest: Digest) -> None:
    registry.commits.create_tag(name, "Prod", "v1")


def _alias(registry: Registry, name: AdapterName, digest: Digest) -> None:
    registry.aliases.move(name, "canary", digest, was=None)


def _grants(name: str, permission: str) -> tuple[Grant, ...]:
    return Identity.with_role(name, permission, ("acme",)).grants
