"""Promises about aliases: they move only from the version at which the mover saw them, and every move is
recorded.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, InvalidRef, NotFound, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.core.refs import Ref
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, AliasInfo, PushOptions
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

PROD = Ref.parse("acme/tone@prod")


class AliasesContract(ContractFixtures):
    """`aliases`, `aliases.move`, `aliases.remove`."""

    def test_an_alias_moves_only_from_where_you_saw_it(self, registry: Registry, lora: MakeLora) -> None:
        first, second = (push(registry, lora(seed), TONE).version.digest for seed in (1, 2))
        seen = registry.aliases.move(TONE, "prod", first, was=None)
        moved = registry.aliases.move(TONE, "prod", second, was=seen.generation)
        assert moved.generation > seen.generation
        with pytest.raises(Conflict, match="look again"):
            registry.aliases.move(TONE, "prod", first, was=seen.generation)
        assert registry.versions.get(PROD).digest == second

    def test_a_new_alias_has_a_name_that_git_accepts(self, registry: Registry, lora: MakeLora) -> None:
        digest = push(registry, lora(), TONE).version.digest
        for alias, shown in (("HEAD", "my-head"), ("a..b", "a.b"), ("x.lock", "x"), ("end.", "end")):
            with pytest.raises(InvalidRef, match=f"; write {shown}$"):
                registry.aliases.move(TONE, alias, digest, was=None)
            with pytest.raises(InvalidRef, match=f"; write {shown}$"):
                push(registry, lora(2), TONE, options=PushOptions(alias=alias))
        assert registry.aliases.list(TONE) == ()

    def test_a_new_alias_branch_or_tag_differs_in_more_than_case(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        digest = push(registry, lora(), TONE).version.digest
        prod = registry.aliases.move(TONE, "Prod", digest, was=None)
        registry.commits.create_branch(TONE, "Draft")
        for make in (
            lambda name: registry.aliases.move(TONE, name, digest, was=None),
            lambda name: registry.commits.create_branch(TONE, name),
            lambda name: registry.commits.create_tag(TONE, name),
        ):
            for name in ("prod", "DRAFT"):
                with pytest.raises(Conflict, match="differs only in case from acme/tone@"):
                    make(name)
        registry.aliases.remove(TONE, "Prod", prod.generation)
        registry.commits.delete_branch(TONE, "Draft")
        registry.commits.create_branch(TONE, "prod")
        registry.commits.create_tag(TONE, "draft")

    def test_a_branch_or_tag_is_called_prod_only_by_those_who_may_move_prod(
        self, registry: Registry, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push(registry, lora(), TONE)
        commits = make_registry(Identity.with_role("cleo", "contributor", ("acme",))).commits
        for make in (commits.create_branch, commits.create_tag):
            for name in ("prod", "Prod"):
                with pytest.raises(PermissionDenied, match=r"alias\.move"):
                    make(TONE, name)
            make(TONE, make.__name__)

    def test_an_alias_is_created_once(self, registry: Registry, lora: MakeLora) -> None:
        digest = push(registry, lora(), TONE).version.digest
        registry.aliases.move(TONE, "prod", digest, was=None)
        with pytest.raises(Conflict, match="acme/tone@prod is version 1"):
            registry.aliases.move(TONE, "prod", digest, was=None)
        with pytest.raises(Conflict, match="does not exist"):
            registry.aliases.move(TONE, "staging", digest, was=1)

    def test_one_of_many_concurrent_moves_succeeds(self, registry: Registry, lora: MakeLora) -> None:
        digests = [push(registry, lora(seed), TONE).version.digest for seed in (1, 2)]
        seen = registry.aliases.move(TONE, "prod", digests[0], was=None)

        def move(number: int) -> AliasInfo | Conflict:
            try:
                return registry.aliases.move(TONE, "prod", digests[number % 2], was=seen.generation)
            except Conflict as error:
                return error

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(move, range(8)))
        assert sum(isinstance(result, AliasInfo) for result in results) == 1

    def test_a_removed_alias_is_absent_and_its_generation_is_not_reused(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        digest = push(registry, lora(), TONE).version.digest
        seen = registry.aliases.move(TONE, "prod", digest, was=None)
        with pytest.raises(Conflict, match="look again"):
            registry.aliases.remove(TONE, "prod", was=seen.generation + 1)
        registry.aliases.remove(TONE, "prod", was=seen.generation)
        assert registry.aliases.list(TONE) == ()
        with pytest.raises(NotFound):
            registry.versions.get(PROD)
        with pytest.raises(NotFound, match="no alias"):
            registry.aliases.remove(TONE, "prod", was=seen.generation)
        assert registry.aliases.move(TONE, "prod", digest, was=None).generation > seen.generation

    @pytest.mark.parametrize("alias", ["latest", "main", "7", "v3", "deadbeef", "refs/x", "", "a b", "é"])
    def test_an_ambiguous_alias_name_is_refused(self, registry: Registry, lora: MakeLora, alias: str) -> None:
        digest = push(registry, lora(), TONE).version.digest
        with pytest.raises(InvalidRef):
            registry.aliases.move(TONE, alias, digest, was=None)

    def test_an_alias_points_at_a_version_of_its_adapter(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        with pytest.raises(NotFound):
            registry.aliases.move(TONE, "prod", Digest.of(b"elsewhere"), was=None)

    def test_aliases_are_listed_in_name_order(self, registry: Registry, lora: MakeLora) -> None:
        digest = push(registry, lora(), TONE).version.digest
        for alias in ("staging", "canary", "prod"):
            registry.aliases.move(TONE, alias, digest, was=None)
        assert [info.alias for info in registry.aliases.list(TONE)] == ["canary", "prod", "staging"]
        assert [registry.aliases.get(TONE, info.alias) for info in registry.aliases.list(TONE)] == list(
            registry.aliases.list(TONE)
        )
        with pytest.raises(NotFound, match="has no alias 'gone'"):
            registry.aliases.get(TONE, "gone")
        assert registry.versions.get(Ref(TONE)).aliases == ("canary", "prod", "staging")

    def test_every_move_is_in_the_history(self, registry: Registry, lora: MakeLora) -> None:
        first, second = (push(registry, lora(seed), TONE).version.digest for seed in (1, 2))
        registry.aliases.move(TONE, "prod", first, was=None)
        registry.aliases.move(TONE, "prod", second, was=1)
        newest = registry.adapters.history(TONE, limit=1).items[0]
        assert (newest.kind, newest.number) == ("alias.moved", 2)
        assert newest.detail["was"] == str(first)
        assert newest.detail["to"] == str(second)

    def test_only_writers_move_aliases(self, make_registry: MakeRegistry, lora: MakeLora) -> None:
        digest = push(make_registry(ADA), lora(), TONE).version.digest
        with pytest.raises(PermissionDenied):
            make_registry(RON).aliases.move(TONE, "prod", digest, was=None)
        with pytest.raises(NotFound):
            make_registry(EVE).aliases.move(TONE, "prod", digest, was=None)
