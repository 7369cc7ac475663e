"""The resolver in a vLLM: what it loads and refuses, how it follows an alias, and when replaced versions are
unloaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import CheckFailed, Unavailable, Unsupported, Withdrawn
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving import Cache
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.storage.local import LocalRegistry
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry.testing.quantised_samples import quantised_copy
from adaptry.testing.samples import tiny_base, tiny_lora

from .bench import Bench, Flapping
from .recorded_vllm import seen

Publish = Callable[..., VersionInfo]
TONE = AdapterName.parse("acme/tone")


def test_a_name_is_answered_from_a_folder_of_its_version(bench: Bench, publish: Publish) -> None:
    first, second = publish(seed=1), publish(seed=2)
    bench.registry.aliases.move(TONE, "prod", first.digest, None)

    async def test() -> None:
        for name, version in {
            "acme/tone@prod": first,
            "acme/tone@1": first,
            "acme/tone": second,
            f"acme/tone@{second.digest.brief}": second,
            f"acme/tone@prod@{first.digest.brief}": first,
        }.items():
            folder = await bench.ask(name)
            assert folder and version.digest.hex in folder

    asyncio.run(test())


def test_loaded_adapters_have_unique_names(bench: Bench, publish: Publish) -> None:
    version = publish()
    bench.registry.aliases.move(TONE, "prod", version.digest, None)

    async def test() -> None:
        for name in ("acme/tone@prod", "acme/tone@1", "acme/tone"):
            await bench.ask(name)
        del bench.models.lora_requests["acme/tone"]  # as its HTTP interface unloads
        await bench.ask("acme/tone")
        names = [request.lora_name for request in bench.models.lora_requests.values()]
        assert len(set(names)) == 3
        assert all(version.digest.brief in name for name in names)
        assert (
            "acme/tone" + f"@{version.digest.brief}" not in names
        )  # it was used before, and a request may still be running

    asyncio.run(test())


@pytest.mark.parametrize(
    "name", ["gpt-4o", "", "acme", "acme/tone@", "../../etc/passwd", "acme/tone@prod@x", "a b/c"]
)
def test_a_name_that_is_not_a_ref_is_ignored_without_a_request(bench: Bench, name: str) -> None:
    assert asyncio.run(bench.ask(name)) is None
    assert bench.registry.asked == 0


def test_an_unknown_name_is_looked_up_only_periodically(bench: Bench, publish: Publish) -> None:
    async def test() -> None:
        for _ in range(20):
            assert await bench.ask("acme/tone") is None
        assert bench.registry.asked == 1

    asyncio.run(test())


def test_many_unknown_names_at_once_are_asked_to_retry_later(
    registry: LocalRegistry, base: Path, cache: Cache
) -> None:
    bench = Bench(Flapping(registry.context), base, cache, clock=lambda: 0.0)

    async def test() -> None:
        with pytest.raises(Unavailable, match="try again in a second"):
            for number in range(200):
                await bench.ask(f"acme/tone-{number}")
        assert bench.registry.asked < 100

    asyncio.run(test())


def test_answers_follow_an_alias_that_moves(bench: Bench, publish: Publish) -> None:
    first, second = publish(seed=1), publish(seed=2)
    seen_at = bench.registry.aliases.move(TONE, "prod", first.digest, None)

    async def test() -> None:
        await bench.ask("acme/tone@prod")
        bench.registry.aliases.move(TONE, "prod", second.digest, seen_at.generation)
        await bench.look()
        folder = await bench.ask("acme/tone@prod")
        assert folder and second.digest.hex in folder
        await bench.look()
        assert bench.held == {second.digest.hex[:12]}

    asyncio.run(test())


def test_a_running_request_keeps_its_version(bench: Bench, publish: Publish, cache: Cache) -> None:
    first, second = publish(seed=1), publish(seed=2)
    seen_at = bench.registry.aliases.move(TONE, "prod", first.digest, None)

    async def test() -> None:
        await bench.ask("acme/tone@prod")
        end = bench.models.begin("acme/tone@prod")
        bench.registry.aliases.move(TONE, "prod", second.digest, seen_at.generation)
        for _ in range(3):
            await bench.look()
        assert bench.held == {first.digest.hex[:12], second.digest.hex[:12]}
        assert cache.is_leased(first.digest)
        end()
        await bench.look()
        assert bench.held == {second.digest.hex[:12]}
        assert not cache.is_leased(first.digest)

    asyncio.run(test())


def test_a_version_under_two_names_stays_while_one_of_them_is_served(
    bench: Bench, publish: Publish, cache: Cache
) -> None:
    first, second = publish(seed=1), publish(seed=2)
    seen_at = bench.registry.aliases.move(TONE, "prod", first.digest, None)

    async def test() -> None:
        await bench.ask("acme/tone@prod")
        await bench.ask("acme/tone@1")
        bench.registry.aliases.move(TONE, "prod", second.digest, seen_at.generation)
        await bench.look()
        await bench.look()
        assert cache.is_leased(first.digest)
        assert bench.held == {first.digest.hex[:12], second.digest.hex[:12]}

    asyncio.run(test())


@pytest.mark.parametrize("state", ["quarantined", "revoked"])
def test_a_withdrawn_version_is_refused_with_the_reason_and_deleted(
    bench: Bench, publish: Publish, cache: Cache, state: Any
) -> None:
    version = publish()

    async def test() -> None:
        folder = await bench.ask("acme/tone@1")
        change_state(bench.registry, Ref.parse("acme/tone@1"), StateChange(state=state, reason="it leaks"))
        await bench.look()
        with pytest.raises(Withdrawn, match="it leaks"):
            await bench.ask("acme/tone@1")
        await bench.look()
        assert folder and not Path(folder).exists()
        assert bench.held == set()
        assert not cache.is_leased(version.digest)

    asyncio.run(test())


def test_files_of_a_recalled_version_stay_while_a_request_needs_them(bench: Bench, publish: Publish) -> None:
    publish()

    async def test() -> None:
        folder = await bench.ask("acme/tone@1")
        end = bench.models.begin("acme/tone@1")
        change_state(
            bench.registry, Ref.parse("acme/tone@1"), StateChange(state="revoked", reason="it leaks")
        )
        await bench.look()
        assert "acme/tone@1" not in bench.models.lora_requests
        await bench.look()
        assert folder and Path(folder).exists()
        end()
        await bench.look()
        assert not Path(folder).exists()

    asyncio.run(test())


def test_a_removed_alias_is_no_longer_served(bench: Bench, publish: Publish) -> None:
    first = publish()
    seen_at = bench.registry.aliases.move(TONE, "prod", first.digest, None)

    async def test() -> None:
        await bench.ask("acme/tone@prod")
        bench.registry.aliases.remove(TONE, "prod", seen_at.generation)
        await bench.look()
        assert await bench.ask("acme/tone@prod") is None

    asyncio.run(test())


def test_an_unreachable_registry_does_not_affect_loaded_adapters(bench: Bench, publish: Publish) -> None:
    publish()

    async def test() -> None:
        folder = await bench.ask("acme/tone@1")
        bench.registry.is_away = True
        await bench.look()
        assert await bench.ask("acme/tone@1") == folder
        with pytest.raises(Unavailable, match="is the server running"):
            await bench.ask("acme/tone")

    asyncio.run(test())


def test_an_alias_moved_to_an_unfit_version_is_refused_and_not_served_stale(
    bench: Bench, publish: Publish, tmp_path: Path
) -> None:
    first = publish()
    seen_at = bench.registry.aliases.move(TONE, "prod", first.digest, None)
    wide = push(bench.registry, open_dir(tiny_lora(tmp_path / "wide", rank=32)), TONE).version

    async def test() -> None:
        await bench.ask("acme/tone@prod")
        bench.registry.aliases.move(TONE, "prod", wide.digest, seen_at.generation)
        await bench.look()
        with pytest.raises(CheckFailed, match="rank is 32, but the server's limit is 16"):
            await bench.ask("acme/tone@prod")

    asyncio.run(test())


def test_a_refusal_by_the_engine_is_reported(bench: Bench, publish: Publish) -> None:
    first, second = publish(seed=1), publish(seed=2)
    seen_at = bench.registry.aliases.move(TONE, "prod", first.digest, None)

    async def test() -> None:
        await bench.ask("acme/tone@prod")
        bench.models.engine_client.refuses = second.digest.hex
        bench.registry.aliases.move(TONE, "prod", second.digest, seen_at.generation)
        await bench.look()
        with pytest.raises(CheckFailed, match="vLLM refuses to load it: LoRA rank 32"):
            await bench.ask("acme/tone@prod")

    asyncio.run(test())


def test_another_base_of_the_same_shapes_is_refused(
    registry: LocalRegistry, base: Path, cache: Cache, publish: Publish, tmp_path: Path
) -> None:
    publish()
    other = Bench(Flapping(registry.context), tiny_base(tmp_path / "other", seed=1), cache)

    with pytest.raises(CheckFailed, match=r"was trained on org/tiny, and this engine serves another model"):
        asyncio.run(other.ask("acme/tone"))
    assert cache.entries() == ()


def test_a_base_in_another_folder_and_other_files_is_the_same_base(
    registry: LocalRegistry, base: Path, cache: Cache, publish: Publish, tmp_path: Path
) -> None:
    publish()
    moved = Bench(Flapping(registry.context), tiny_base(tmp_path / "else", shards=3), cache)

    assert asyncio.run(moved.ask("acme/tone"))


def test_a_quantised_copy_of_the_base_serves_its_adapters(
    registry: LocalRegistry, tmp_path: Path, cache: Cache, publish: Publish
) -> None:
    whole = tiny_base(tmp_path / "whole", hidden=64)
    base_registry.register_base(registry, open_checkpoint(whole), ("org/tiny",), cache=tmp_path / "bases")
    publish(hidden=64)
    copied = quantised_copy(whole, tmp_path / "copied", "nf4")
    quantised = Bench(Flapping(registry.context), copied, cache)

    assert asyncio.run(quantised.ask("acme/tone"))


def test_a_version_with_only_a_declared_base_is_refused(
    registry: LocalRegistry, cache: Cache, publish: Publish, tmp_path: Path
) -> None:
    publish()
    unsure = Bench(Flapping(registry.context), tiny_base(tmp_path / "base"), cache)

    with pytest.raises(CheckFailed, match="adaptry base add"):
        asyncio.run(unsure.ask("acme/tone"))


def test_the_base_must_be_passed_if_the_engine_does_not_report_it(
    registry: LocalRegistry, base: Path, cache: Cache, publish: Publish, tmp_path: Path
) -> None:
    publish()
    blind = Bench(Flapping(registry.context), tmp_path / "org-tiny.gguf", cache)

    with pytest.raises(CheckFailed, match=r"or set ADAPTRY_BASE .* to its name in the registry"):
        asyncio.run(blind.ask("acme/tone"))


def test_a_full_cache_unloads_an_idle_adapter_for_a_request(
    registry: LocalRegistry, base: Path, publish: Publish, tmp_path: Path
) -> None:
    first, second = publish(seed=1), publish(seed=2)
    cache = Cache(tmp_path / "cache", size=first.size + 10, retry=NO_WAIT)
    full = Bench(Flapping(registry.context), base, cache, refused_for=0.0)

    async def test() -> None:
        await full.ask("acme/tone@1")
        folder = await full.ask("acme/tone@2")
        assert folder and second.digest.hex in folder
        assert full.held == {second.digest.hex[:12]}

    asyncio.run(test())


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.32.0", "vllm@0.32.0"),
        ("0.33.1.dev5+gabc.cpu", "vllm@0.33.1"),
        ("0.1.dev1", "vllm@0.1"),
        ("dev", "vllm"),
    ],
)
def test_the_running_engine_and_its_limits_are_detected(bench: Bench, version: str, said: str) -> None:
    runtime = InProcessVllm(bench.models).runtime(version)

    assert str(runtime) == f"{said},max_lora_rank=16,max_loras=2"


def test_an_engine_that_applies_adapters_of_towers_is_detected(bench: Bench) -> None:
    bench.models.engine_client.limits["enable_tower_connector_lora"] = True
    runtime = InProcessVllm(bench.models).runtime("0.33.0")

    assert runtime.options["enable_tower_connector_lora"] == "true"


def test_an_unsupported_vllm_is_refused_with_the_alternative() -> None:
    class Unlike:
        async def resolve_lora(self, name: str) -> Any:
            return await seen(lambda vllm, name: None, name)  # type: ignore[arg-type, return-value]

    with pytest.raises(Unsupported, match="adaptry follow"):
        asyncio.run(Unlike().resolve_lora("acme/tone"))


def test_events_of_the_registry_are_received(
    registry: LocalRegistry, base: Path, cache: Cache, publish: Publish
) -> None:
    first, second = publish(seed=1), publish(seed=2)
    seen_at = registry.aliases.move(TONE, "prod", first.digest, None)
    hearing = Bench(Flapping(registry.context), base, cache, every=0.01)

    async def test() -> None:
        await hearing.ask("acme/tone@prod")
        assert await hearing.ask("acme/tone@next") is None
        await asyncio.to_thread(registry.aliases.move, TONE, "prod", second.digest, seen_at.generation)
        await asyncio.to_thread(registry.aliases.move, TONE, "next", second.digest, None)
        async with asyncio.timeout(60):
            while second.digest.hex not in (await hearing.ask("acme/tone@prod") or ""):
                await asyncio.sleep(0)
            while not await hearing.ask("acme/tone@next"):  # it was refused, and the refusal is forgotten
                await asyncio.sleep(0)

    asyncio.run(test())
