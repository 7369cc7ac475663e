"""Promises about the names of bases: an adapter cannot take the name of a base, nor a base that of an
adapter.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import pytest

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict
from adaptry.core.identity import LOCAL
from adaptry.core.refs import AdapterName
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit
from adaptry.testing.contract.fixtures import TONE, ContractFixtures, MakeLora, MakeRegistry
from adaptry.testing.samples import tiny_base

TINY = AdapterName.parse("org/tiny")
ALIAS = AdapterName.parse("org/again")
OTHER_CASE = AdapterName.parse("org/TINY")


class FailsOnRetry(RetryPolicy):
    """Fails if an operation is retried after a wait."""

    def wait(self, failures: int) -> None:
        raise AssertionError("waited for a condition that does not change")


class BaseNamesContract(ContractFixtures):
    """Tests that a name belongs to only one base or adapter."""

    @pytest.fixture
    def tiny(self, tmp_path: Path) -> BaseRecord:
        return fingerprint(open_checkpoint(tiny_base(tmp_path / "tiny")))

    @pytest.mark.parametrize("name", [TINY, ALIAS, OTHER_CASE], ids=str)
    def test_no_adapter_is_created_pushed_or_renamed_to_a_name_of_a_base(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord, name: AdapterName
    ) -> None:
        registry.bases.put(tiny, ("org/tiny", "org/again"))
        push(registry, lora(), TONE)
        with pytest.raises(Conflict, match="is the name of a base"):
            registry.adapters.create(name, AdapterEdit())
        with pytest.raises(Conflict, match="is the name of a base"):
            push(registry, lora(), name, retry=FailsOnRetry())
        with pytest.raises(Conflict, match="is the name of a base"):
            registry.adapters.rename(TONE, name)
        with pytest.raises(Conflict, match="is the name of a base"):
            registry.uploads.open(name, Digest.of(b"abc"), 3)
        assert [info.name for info in registry.adapters.list().items] == [TONE]

    def test_a_base_cannot_take_an_adapters_name_and_the_remedy_works(
        self, registry: Registry, lora: MakeLora, tmp_path: Path
    ) -> None:
        push(registry, lora(), TINY)
        folder = open_checkpoint(tiny_base(tmp_path / "tiny"))
        with pytest.raises(Conflict, match=r"adaptry rename org/tiny NEW"):
            register_base(registry, folder, ("org/tiny",), store=True, cache=tmp_path / "cache")
        assert registry.bases.list().items == ()
        registry.adapters.rename(TINY, AdapterName.parse("org/tiny-lora"))
        info = register_base(registry, folder, ("org/tiny",), store=True, cache=tmp_path / "cache")
        assert info.is_stored

    def test_a_base_cannot_take_an_empty_adapters_name(self, registry: Registry, tiny: BaseRecord) -> None:
        registry.adapters.create(TINY, AdapterEdit())
        with pytest.raises(Conflict, match=r"adaptry delete org/tiny"):
            registry.bases.put(tiny, ("org/tiny",))
        registry.adapters.delete(TINY)
        assert registry.bases.put(tiny, ("org/tiny",)).names == ("org/tiny",)

    def test_a_base_and_an_adapter_racing_for_a_name_do_not_both_get_it(
        self, make_registry: MakeRegistry, registry: Registry, tiny: BaseRecord
    ) -> None:
        names = [f"org/n{number}" for number in range(8)]
        start = Barrier(2)

        def name_the_base() -> None:
            start.wait()
            with suppress(Conflict):
                make_registry(LOCAL).bases.put(tiny, tuple(names))

        def create_the_adapters() -> None:
            start.wait()
            for name in names:
                with suppress(Conflict):
                    make_registry(LOCAL).adapters.create(AdapterName.parse(name), AdapterEdit())

        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(name_the_base), threads.submit(create_the_adapters)]:
                done.result()
        of_bases = [name for info in registry.bases.list().items for name in info.names]
        of_adapters = [str(info.name) for info in registry.adapters.list().items]
        assert sorted([*of_bases, *of_adapters]) == names
