"""Promises about adapters: how they are created, edited, renamed, deleted and listed, and their history."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied
from adaptry.core.identity import ANONYMOUS
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import AdapterEdit, AdapterInfo, Page, PushOptions
from adaptry.testing.contract.fixtures import ADA, EVE, RON, TONE, ContractFixtures, MakeLora, MakeRegistry

VOICE = AdapterName.parse("acme/voice")


class AdaptersContract(ContractFixtures):
    """`adapters.create` to `adapters.delete`, and `history`."""

    def test_a_new_adapter_is_private_and_empty(self, registry: Registry) -> None:
        info = registry.adapters.create(TONE, AdapterEdit(description="How we say it", tags=("nlp",)))
        assert (info.visibility, info.versions, info.latest) == ("private", 0, None)
        assert (info.description, info.tags) == ("How we say it", ("nlp",))
        assert registry.adapters.get(TONE) == info

    def test_a_name_is_created_once(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        with pytest.raises(Conflict, match="acme/tone is taken"):
            registry.adapters.create(TONE, AdapterEdit())

    def test_a_new_name_differs_from_every_other_in_more_than_case(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        registry.adapters.create(VOICE, AdapterEdit())
        for name in ("acme/Tone", "Acme/tone", "ACME/other"):
            other = AdapterName.parse(name)
            for make in (
                lambda other=other: registry.adapters.create(other, AdapterEdit()),
                lambda other=other: push(registry, lora(), other),
                lambda other=other: registry.adapters.rename(VOICE, other),
            ):
                with pytest.raises(Conflict, match="differs only in case from"):
                    make()
        assert [str(info.name) for info in registry.adapters.list().items] == ["acme/tone", "acme/voice"]

    def test_an_adapter_can_be_renamed_to_its_name_in_another_case(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        capital = AdapterName.parse("acme/Tone")
        assert registry.adapters.rename(TONE, capital).name == capital
        with pytest.raises(Conflict, match="differs only in case from acme/Tone"):
            registry.adapters.create(TONE, AdapterEdit())
        registry.adapters.delete(capital)
        registry.adapters.create(TONE, AdapterEdit())

    def test_only_one_of_many_names_that_differ_only_in_case_is_created(self, registry: Registry) -> None:
        names = [AdapterName.parse(f"acme/{name}") for name in ("tone", "Tone", "TONE", "tOne")]

        def create(name: AdapterName) -> bool:
            try:
                registry.adapters.create(name, AdapterEdit())
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(len(names)) as pool:
            assert sum(pool.map(create, names)) == 1

    def test_every_request_for_an_absent_adapter_is_not_found(self, registry: Registry) -> None:
        for ask in (
            lambda: registry.adapters.get(TONE),
            lambda: registry.adapters.edit(TONE, AdapterEdit(description="x")),
            lambda: registry.adapters.delete(TONE),
            lambda: registry.versions.list(TONE),
            lambda: registry.aliases.list(TONE),
            lambda: registry.adapters.history(TONE),
            lambda: registry.versions.get(Ref(TONE)),
        ):
            with pytest.raises(NotFound, match="acme/tone"):
                ask()

    def test_an_edit_changes_only_the_given_fields(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit(description="old", tags=("a", "b")))
        registry.adapters.edit(TONE, AdapterEdit(description="new"))
        info = registry.adapters.edit(TONE, AdapterEdit(visibility="public"))
        assert (info.description, info.tags, info.visibility) == ("new", ("a", "b"), "public")
        assert registry.adapters.edit(TONE, AdapterEdit(tags=())).tags == ()

    def test_a_rename_moves_versions_and_aliases_and_frees_the_old_name(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        pushed = push(registry, lora(), TONE, options=PushOptions(alias="prod", metrics={"f1": 0.5}))
        registry.adapters.rename(TONE, VOICE)
        version = registry.versions.get(Ref.parse("acme/voice@prod"))
        assert (version.digest, version.metrics) == (pushed.version.digest, {"f1": 0.5})
        assert b"".join(registry.files.read(VOICE, version.digest, "adapter_config.json"))
        assert {event.kind for event in registry.adapters.history(VOICE).items} >= {
            "version.pushed",
            "adapter.renamed",
        }
        with pytest.raises(NotFound):
            registry.adapters.get(TONE)

    def test_numbering_continues_when_a_former_name_is_used_again(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(1), TONE)
        registry.adapters.rename(TONE, VOICE)
        assert push(registry, lora(2), TONE).version.number == 2
        assert push(registry, lora(3), VOICE).version.number == 2

    def test_a_rename_onto_a_taken_name_is_a_conflict(self, registry: Registry) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        registry.adapters.create(VOICE, AdapterEdit())
        with pytest.raises(Conflict, match="acme/voice is taken"):
            registry.adapters.rename(TONE, VOICE)

    def test_a_renamed_adapter_can_be_renamed_back(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(1), TONE)
        registry.adapters.rename(TONE, VOICE)
        registry.adapters.rename(VOICE, TONE)
        assert push(registry, lora(2), TONE).version.number == 2

    def test_a_recreated_adapter_is_empty_and_continues_its_numbering(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        first = push(registry, lora(1), TONE).version
        registry.adapters.delete(TONE)
        with pytest.raises(NotFound):
            registry.versions.get(Ref(TONE))
        registry.adapters.create(TONE, AdapterEdit())
        assert registry.versions.list(TONE).items == ()
        assert not registry.files.has(TONE, first.weights)
        again = push(registry, lora(1), TONE)
        assert (again.version.number, again.is_new) == (2, True)

    def test_an_adapter_in_use_through_an_alias_is_not_deleted(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(), TONE, options=PushOptions(alias="prod"))
        with pytest.raises(Conflict, match="prod"):
            registry.adapters.delete(TONE)

    def test_an_alias_generation_is_never_reused_even_after_a_deletion(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(1), TONE, options=PushOptions(alias="prod"))
        registry.aliases.remove(TONE, "prod", was=1)
        registry.adapters.delete(TONE)
        push(registry, lora(2), TONE, options=PushOptions(alias="prod"))
        assert [alias.generation for alias in registry.aliases.list(TONE)] == [2]

    def test_adapters_are_listed_in_name_order_page_by_page(self, registry: Registry) -> None:
        names = [AdapterName.parse(f"acme/a{number}") for number in range(5)]
        for name in reversed(names):
            registry.adapters.create(name, AdapterEdit())
        registry.adapters.create(AdapterName.parse("other/z"), AdapterEdit())
        first = registry.adapters.list("acme", limit=3)
        second = registry.adapters.list("acme", cursor=first.next, limit=3)
        assert [info.name for info in (*first.items, *second.items)] == names
        assert second.next is None
        assert len(registry.adapters.list().items) == 6

    def test_adapters_are_listed_in_every_order_page_by_page(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        for name, pushes, downloads in (("a", 1, 2), ("b", 2, 0), ("c", 0, 0), ("d", 2, 1)):
            adapter = AdapterName.parse(f"acme/{name}")
            registry.adapters.create(adapter, AdapterEdit())
            for seed in range(pushes):
                push(registry, lora(seed), adapter)
            for _ in range(downloads):
                registry.versions.count_download(Ref(adapter))
        registry.adapters.edit(AdapterName.parse("acme/b"), AdapterEdit(description="new"))
        registry.adapters.create(AdapterName.parse("other/z"), AdapterEdit())

        def listed(sort: str, reverse: bool) -> str:
            def page(cursor: str | None) -> Page[AdapterInfo]:
                return registry.adapters.list("acme", cursor, 1, sort=sort, reverse=reverse)

            return "".join(info.name.name for info in iter_items(page))

        for sort, names in {
            "name": "abcd",
            "updated": "bdca",
            "downloads": "adbc",
            "versions": "bdac",
        }.items():
            assert listed(sort, False) == names
            assert listed(sort, True) == names[::-1]
        assert registry.adapters.list(sort="updated").items[0].name.namespace == "other"

    def test_an_unknown_order_is_refused_with_those_that_exist(self, registry: Registry) -> None:
        with pytest.raises(Invalid, match=r"unknown sort key 'update' \(one of: name, updated.*mean updated"):
            registry.adapters.list(sort="update")

    def test_a_cursor_continues_only_its_own_order(self, registry: Registry) -> None:
        for name in "ab":
            registry.adapters.create(AdapterName.parse(f"acme/{name}"), AdapterEdit())
        cursor = registry.adapters.list(limit=1, sort="downloads").next
        assert cursor is not None
        for sort, reverse in (("name", False), ("downloads", True), ("versions", False)):
            with pytest.raises(Invalid, match="cursor does not belong"):
                registry.adapters.list(cursor=cursor, sort=sort, reverse=reverse)

    def test_a_page_of_zero_or_too_many_items_is_refused(self, registry: Registry) -> None:
        for limit in (0, 201, -1):
            with pytest.raises(Invalid, match="1 to 200"):
                registry.adapters.list(limit=limit)

    def test_a_forged_cursor_is_refused(self, registry: Registry) -> None:
        for cursor in ("", "x", "AAAA", "MDAwMDAwMDBhY21lL2E", "é", "a" * 10_000):
            with pytest.raises(Invalid, match="cursor"):
                registry.adapters.list(cursor=cursor)

    def test_history_is_listed_newest_first_in_pages(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(), TONE)
        registry.adapters.edit(TONE, AdapterEdit(description="x"))
        first = registry.adapters.history(TONE, limit=2)
        rest = registry.adapters.history(TONE, cursor=first.next, limit=2)
        kinds = [event.kind for event in (*first.items, *rest.items)]
        assert kinds == ["adapter.edited", "version.pushed", "adapter.created"]
        assert all(event.name == TONE and event.by for event in first.items)

    def test_private_adapters_are_absent_for_strangers(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push(make_registry(ADA), lora(), TONE)
        for stranger in (EVE, ANONYMOUS):
            seen = make_registry(stranger)
            assert seen.adapters.list().items == ()
            assert seen.versions.search("").items == ()
            with pytest.raises(NotFound, match="no adapter acme/tone"):
                seen.adapters.get(TONE)

    def test_public_adapters_are_read_by_all_and_written_by_their_namespace(
        self, make_registry: MakeRegistry, lora: MakeLora
    ) -> None:
        push(make_registry(ADA), lora(), TONE)
        make_registry(ADA).adapters.edit(TONE, AdapterEdit(visibility="public"))
        for reader in (EVE, RON, ANONYMOUS):
            seen = make_registry(reader)
            assert seen.adapters.get(TONE).name == TONE
            assert len(seen.versions.search("name:tone").items) == 1
            with pytest.raises(PermissionDenied):
                seen.adapters.edit(TONE, AdapterEdit(description="mine"))

    def test_a_rename_into_a_foreign_namespace_is_refused(self, make_registry: MakeRegistry) -> None:
        ada = make_registry(ADA)
        ada.adapters.create(TONE, AdapterEdit())
        with pytest.raises(PermissionDenied):
            ada.adapters.rename(TONE, AdapterName.parse("evil/tone"))
