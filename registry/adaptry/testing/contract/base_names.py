"""Promises about the names of bases: an adapter takes none of them, and no base takes an adapter's name."""

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


class Hurried(RetryPolicy):
    """Nothing is tried again after a wait."""

    def wait(self, failures: int) -> None:
        raise AssertionError("waited for what does not change")


class BaseNamesContract(ContractFixtures):
    """One name, one thing."""

    @pytest.fixture
    def tiny(self, tmp_path: Path) -> BaseRecord:
        return fingerprint(open_checkpoint(tiny_base(tmp_path / "tiny")))

    @pytest.mark.parametrize("name", [TINY, ALIAS, OTHER_CASE], ids=str)
    def test_no_adapter_is_created_pushed_or_renamed_to_a_name_of_a_base(
        self, registry: Registry, lora: MakeLora, tiny: BaseRecord, name: AdapterName
    ) -> None:
        registry.put_base(tiny, ("org/tiny", "org/again"))
        push(registry, lora(), TONE)
        with pytest.raises(Conflict, match="is the name of a base"):
            registry.create_adapter(name, AdapterEdit())
        with pytest.raises(Conflict, match="is the name of a base"):
            push(registry, lora(), name, retry=Hurried())
        with pytest.raises(Conflict, match="is the name of a base"):
            registry.rename_adapter(TONE, name)
        with pytest.raises(Conflict, match="is the name of a base"):
            registry.open_upload(name, Digest.of(b"abc"), 3)
        assert [info.name for info in registry.adapters().items] == [TONE]

    def test_a_base_is_not_given_the_name_of_an_adapter_and_the_remedy_works(
        self, registry: Registry, lora: MakeLora, tmp_path: Path
    ) -> None:
        push(registry, lora(), TINY)
        folder = open_checkpoint(tiny_base(tmp_path / "tiny"))
        with pytest.raises(Conflict, match=r"adaptry rename org/tiny NEW"):
            register_base(registry, folder, ("org/tiny",), store=True, cache=tmp_path / "cache")
        assert registry.bases().items == ()
        registry.rename_adapter(TINY, AdapterName.parse("org/tiny-lora"))
        info = register_base(registry, folder, ("org/tiny",), store=True, cache=tmp_path / "cache")
        assert info.is_stored

    def test_nor_the_name_of_an_adapter_that_is_empty(self, registry: Registry, tiny: BaseRecord) -> None:
        registry.create_adapter(TINY, AdapterEdit())
        with pytest.raises(Conflict, match=r"adaptry delete org/tiny"):
            registry.put_base(tiny, ("org/tiny",))
        registry.delete_adapter(TINY)
        assert registry.put_base(tiny, ("org/tiny",)).names == ("org/tiny",)

    def test_of_a_base_and_an_adapter_that_race_for_a_name_one_has_it(
        self, make_registry: MakeRegistry, registry: Registry, tiny: BaseRecord
    ) -> None:
        names = [f"org/n{number}" for number in range(8)]
        start = Barrier(2)

        def name_the_base() -> None:
            start.wait()
            with suppress(Conflict):
                make_registry(LOCAL).put_base(tiny, tuple(names))

        def create_the_adapters() -> None:
            start.wait()
            for name in names:
                with suppress(Conflict):
                    make_registry(LOCAL).create_adapter(AdapterName.parse(name), AdapterEdit())

        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(name_the_base), threads.submit(create_the_adapters)]:
                done.result()
        of_bases = [name for info in registry.bases().items for name in info.names]
        of_adapters = [str(info.name) for info in registry.adapters().items]
        assert sorted([*of_bases, *of_adapters]) == names
